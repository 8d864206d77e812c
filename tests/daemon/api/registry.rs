//! Participants: who registers what, for how long, and what does not go together.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sagad::proto::{
    BreakerState, DeregisterHandlersRequest, HandlerAction, ListParticipantsRequest, Participant,
    ParticipantHealth, Protocol, RegisterHandlersRequest, RegisterHandlersResponse, RenewRegistrationRequest,
    SagaStatus,
};
use tonic::{Code, Status};

use crate::support::daemon::{Daemon, Launch};
use crate::support::participant::{self, Answer, Gate};
use crate::support::play::{Play, ms, unique, violations};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

const ONE: &str = "steps: [{ name: only, action: { call: shop.do }, compensation: none }]";

fn request(participant: &str, endpoint: &str, actions: &[&str]) -> RegisterHandlersRequest {
    let named = |name: &&str| HandlerAction { name: (*name).to_owned(), ..HandlerAction::default() };
    RegisterHandlersRequest {
        participant: participant.to_owned(),
        endpoint: endpoint.to_owned(),
        protocol: Protocol::Sagad.into(),
        actions: actions.iter().map(named).collect(),
        max_in_flight: 0,
        ttl: None,
        descriptor_set: Vec::new(),
    }
}

async fn register(request: RegisterHandlersRequest) -> Result<RegisterHandlersResponse, Status> {
    Ok(DAEMON.daemon().registry().register_handlers(request).await?.into_inner())
}

async fn listed(daemon: &Daemon, name: &str) -> Result<Option<Participant>> {
    let request = ListParticipantsRequest { participant: name.to_owned() };
    let answer = daemon.registry().list_participants(request).await?.into_inner();
    Ok(answer.participants.into_iter().next())
}

/// Seconds from now until `at`.
fn seconds_left(at: Option<prost_types::Timestamp>) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    at.expect("a time").seconds - now.as_secs().cast_signed()
}

#[tokio::test]
async fn a_registration_without_a_ttl_lasts_thirty_seconds() -> Result<()> {
    let name = unique("plain");
    let answer = register(request(&name, "http://127.0.0.1:9", &["b", "a"])).await?;
    assert!((28..=31).contains(&seconds_left(answer.expires_at)));
    let found = listed(DAEMON.daemon(), &name).await?.context("it is listed")?;
    assert_eq!((found.name.as_str(), found.protocol()), (name.as_str(), Protocol::Sagad));
    assert_eq!((found.health(), found.breaker()), (ParticipantHealth::Healthy, BreakerState::Closed));
    assert_eq!(found.actions.iter().map(|action| action.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let registration = &found.registrations[0];
    assert_eq!((&registration.registration_id, registration.max_in_flight), (&answer.registration_id, 64));
    assert_eq!((registration.endpoint.as_str(), registration.from_config), ("http://127.0.0.1:9", false));
    Ok(())
}

#[tokio::test]
async fn the_same_endpoint_again_replaces_and_keeps_its_id() -> Result<()> {
    let name = unique("again");
    let first = register(request(&name, "http://127.0.0.1:9", &["a"])).await?;
    let mut again = request(&name, "http://127.0.0.1:9", &["b"]);
    again.ttl = Some(prost_types::Duration { seconds: 600, nanos: 0 });
    again.max_in_flight = 3;
    let second = register(again).await?;
    assert_eq!(first.registration_id, second.registration_id);
    assert!((590..=601).contains(&seconds_left(second.expires_at)));
    let found = listed(DAEMON.daemon(), &name).await?.context("it is listed")?;
    assert_eq!((found.registrations.len(), found.registrations[0].max_in_flight), (1, 3));
    assert_eq!(found.actions.iter().map(|action| action.name.as_str()).collect::<Vec<_>>(), ["b"]);
    Ok(())
}

#[tokio::test]
async fn renewing_gives_another_full_ttl_and_leaving_ends_it() -> Result<()> {
    let name = unique("renewed");
    let mut first = request(&name, "http://127.0.0.1:9", &["a"]);
    first.ttl = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    let registration_id = register(first).await?.registration_id;
    let mut registry = DAEMON.daemon().registry();
    let renew = RenewRegistrationRequest { registration_id: registration_id.clone() };
    let renewed = registry.renew_registration(renew.clone()).await?.into_inner();
    assert!((3_590..=3_601).contains(&seconds_left(renewed.expires_at)));
    let leave = DeregisterHandlersRequest { registration_id };
    registry.deregister_handlers(leave.clone()).await?;
    assert_eq!(registry.deregister_handlers(leave).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(registry.renew_registration(renew).await.unwrap_err().code(), Code::NotFound);
    let left = listed(DAEMON.daemon(), &name).await?;
    assert!(left.is_none_or(|p| p.registrations.is_empty() && p.health() == ParticipantHealth::Absent));
    Ok(())
}

#[tokio::test]
async fn an_expired_registration_is_gone_and_its_sagas_wait() -> Result<()> {
    let play = Play::unregistered(DAEMON.daemon(), |_| Answer::done()).await?;
    play.define(ONE).await?;
    let endpoint = format!("http://{}", play.shop.address);
    let mut short = request(&play.participant, &endpoint, &["do"]);
    short.ttl = Some(ms(200));
    let registration_id = register(short).await?.registration_id;
    let gone = async {
        while listed(play.daemon, &play.participant).await?.is_some_and(|p| !p.registrations.is_empty()) {
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.context("it never expires")??;
    let renew = RenewRegistrationRequest { registration_id };
    assert_eq!(play.daemon.registry().renew_registration(renew).await.unwrap_err().code(), Code::NotFound);
    let id = play.start("a", "{}").await?;
    let parked = play.until(&id, |saga| !saga.waiting_on.is_empty()).await?;
    assert_eq!(parked.waiting_on, format!("participant {}", play.participant));
    play.register_shop(ONE).await?;
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn two_endpoints_share_the_load_of_their_participant() -> Result<()> {
    let play = Play::unregistered(DAEMON.daemon(), |_| Answer::done()).await?;
    let other = participant::Participant::scripted(|_| Answer::done()).await?;
    play.register_shop(ONE).await?;
    other.register(play.daemon, &play.participant, &["do"]).await?;
    play.define(ONE).await?;
    let runs = (0..40).map(|n| {
        let play = &play;
        async move { play.run(&n.to_string(), "{}").await }
    });
    for saga in futures::future::join_all(runs).await {
        assert_eq!(saga?.status(), SagaStatus::Completed);
    }
    let (here, there) = (play.shop.calls().len(), other.calls().len());
    assert_eq!(here + there, 40);
    assert!(here >= 5 && there >= 5, "{here} here, {there} there");
    Ok(())
}

#[tokio::test]
async fn one_endpoint_that_leaves_hands_its_work_to_the_other() -> Result<()> {
    let play = Play::unregistered(DAEMON.daemon(), |_| Answer::done()).await?;
    let other = participant::Participant::scripted(|_| Answer::done()).await?;
    let leaving = play.register_shop(ONE).await?;
    other.register(play.daemon, &play.participant, &["do"]).await?;
    play.define(ONE).await?;
    let leave = DeregisterHandlersRequest { registration_id: leaving };
    play.daemon.registry().deregister_handlers(leave).await?;
    for n in 0..5 {
        assert_eq!(play.run(&n.to_string(), "{}").await?.status(), SagaStatus::Completed);
    }
    assert_eq!((play.shop.calls().len(), other.calls().len()), (0, 5));
    Ok(())
}

#[tokio::test]
async fn no_more_calls_are_in_flight_than_the_endpoint_takes() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let play = Play::unregistered(DAEMON.daemon(), move |_| held.then(Answer::done())).await?;
    let mut narrow = request(&play.participant, &format!("http://{}", play.shop.address), &["do"]);
    narrow.max_in_flight = 2;
    narrow.ttl = Some(prost_types::Duration { seconds: 600, nanos: 0 });
    register(narrow).await?;
    play.define(ONE).await?;
    for n in 0..6 {
        play.start(&n.to_string(), "{}").await?;
    }
    let busy = async {
        while play.shop.calls().len() < 2 {
            play.wait(&play.id("5"), sagad::proto::WaitFor::Ended, Duration::from_millis(20)).await?;
        }
        play.wait(&play.id("5"), sagad::proto::WaitFor::Ended, Duration::from_millis(100)).await
    };
    tokio::time::timeout(Duration::from_secs(20), busy).await.context("two calls come")??;
    assert_eq!(play.shop.calls().len(), 2);
    let found = listed(play.daemon, &play.participant).await?.context("it is listed")?;
    assert_eq!((found.in_flight, found.registrations[0].in_flight), (2, 2));
    gate.open();
    for n in 0..6 {
        assert_eq!(play.ended(&play.id(&n.to_string())).await?.status(), SagaStatus::Completed);
    }
    let found = listed(play.daemon, &play.participant).await?.context("it is listed")?;
    assert_eq!((found.in_flight, found.registrations[0].calls), (0, 6));
    Ok(())
}

#[tokio::test]
async fn registrations_that_make_no_sense_are_invalid_and_say_where() -> Result<()> {
    let good = request(&unique("wrong"), "http://127.0.0.1:9", &["a"]);
    let wrong = [
        ("participant", RegisterHandlersRequest { participant: String::new(), ..good.clone() }),
        ("participant", RegisterHandlersRequest { participant: "a.b".to_owned(), ..good.clone() }),
        ("participant", RegisterHandlersRequest { participant: "x".repeat(129), ..good.clone() }),
        ("endpoint", RegisterHandlersRequest { endpoint: String::new(), ..good.clone() }),
        ("endpoint", RegisterHandlersRequest { endpoint: "not a url".to_owned(), ..good.clone() }),
        ("endpoint", RegisterHandlersRequest { endpoint: "ftp://127.0.0.1:9".to_owned(), ..good.clone() }),
        ("endpoint", RegisterHandlersRequest { endpoint: "127.0.0.1:9".to_owned(), ..good.clone() }),
        ("protocol", RegisterHandlersRequest { protocol: 0, ..good.clone() }),
        ("protocol", RegisterHandlersRequest { protocol: 77, ..good.clone() }),
        ("actions", RegisterHandlersRequest { actions: vec![], ..good.clone() }),
        (
            "ttl",
            RegisterHandlersRequest {
                ttl: Some(prost_types::Duration { seconds: 3601, nanos: 0 }),
                ..good.clone()
            },
        ),
        (
            "ttl",
            RegisterHandlersRequest {
                ttl: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
                ..good.clone()
            },
        ),
    ];
    for (field, request) in wrong {
        let status = register(request.clone()).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{request:?}");
        assert_eq!(violations(&status), [field], "{request:?}: {status:?}");
    }
    for actions in [&["a", "a"][..], &[""], &["a b"]] {
        let status =
            register(RegisterHandlersRequest { actions: request("x", "y", actions).actions, ..good.clone() });
        let status = status.await.expect_err("bad actions");
        assert_eq!(status.code(), Code::InvalidArgument, "{actions:?}");
        assert!(violations(&status).iter().all(|field| field.starts_with("actions")), "{status:?}");
    }
    assert!(listed(DAEMON.daemon(), &good.participant).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn registrations_survive_a_restart_and_get_a_full_ttl() -> Result<()> {
    let data = tempfile::tempdir()?;
    let daemon = Launch::on(data.path()).start()?;
    let play = Play::on(&daemon, ONE, |_| Answer::done()).await?;
    let before = listed(&daemon, &play.participant).await?.context("listed")?;
    let mut short = request("short", "http://127.0.0.1:9", &["do"]);
    short.ttl = Some(prost_types::Duration { seconds: 120, nanos: 0 });
    daemon.registry().register_handlers(short).await?;
    let Play { shop, participant, name, .. } = play;
    daemon.kill()?;
    let daemon = Launch::on(data.path()).start()?;
    let after = listed(&daemon, &participant).await?.context("listed")?;
    assert_eq!(after.registrations[0].registration_id, before.registrations[0].registration_id);
    assert_eq!(after.actions, before.actions);
    let left = listed(&daemon, "short").await?.context("listed")?.registrations[0].expires_at;
    assert!((110..=121).contains(&seconds_left(left)));
    let play = Play { daemon: &daemon, shop, participant, name };
    assert_eq!(play.run("a", "{}").await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn participants_in_the_configuration_never_expire_and_cannot_leave() -> Result<()> {
    let shop = participant::Participant::scripted(|_| Answer::done()).await?;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("sagad.toml");
    let text = format!(
        "[[participants]]\nname = \"fixed\"\nendpoint = \"http://{}\"\nactions = [\"do\"]\n",
        shop.address
    );
    std::fs::write(&config, text)?;
    let daemon =
        Launch::on(&folder.path().join("data")).arg("--config").arg(config.display().to_string()).start()?;
    let found = listed(&daemon, "fixed").await?.context("listed")?;
    let registration = &found.registrations[0];
    assert!(registration.from_config && registration.expires_at.is_none());
    let leave = DeregisterHandlersRequest { registration_id: registration.registration_id.clone() };
    let refused = daemon.registry().deregister_handlers(leave).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let renew = RenewRegistrationRequest { registration_id: registration.registration_id.clone() };
    assert!(daemon.registry().renew_registration(renew).await?.into_inner().expires_at.is_none());
    let play = Play { daemon: &daemon, shop, participant: "fixed".to_owned(), name: unique("play") };
    play.define(ONE).await?;
    assert_eq!(play.run("a", "{}").await?.status(), SagaStatus::Completed);
    Ok(())
}

#[tokio::test]
async fn a_participant_that_stops_answering_is_shown_as_down_and_comes_back() -> Result<()> {
    let body = "steps: [{ name: only, action: { call: shop.do, timeout: 1s, retry: { initial: 1ms, max: 20ms, attempts: 0, elapsed: 0 } }, compensation: none }]";
    let play = Play::unregistered(DAEMON.daemon(), |_| Answer::done()).await?;
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let mut gone = request(&play.participant, &format!("http://{dead}"), &["do"]);
    gone.ttl = Some(prost_types::Duration { seconds: 600, nanos: 0 });
    let registration_id = register(gone).await?.registration_id;
    play.define(body).await?;
    let id = play.start("a", "{}").await?;
    let seen_down = async {
        loop {
            let found = listed(play.daemon, &play.participant).await?.context("listed")?;
            if found.health() == ParticipantHealth::Down {
                return anyhow::Ok(found);
            }
            play.wait(&id, sagad::proto::WaitFor::Ended, Duration::from_millis(20)).await?;
        }
    };
    let down = tokio::time::timeout(Duration::from_secs(20), seen_down).await.context("never down")??;
    assert!(!down.registrations[0].last_error.is_empty(), "{down:#?}");
    play.register_shop(body).await?;
    let leave = DeregisterHandlersRequest { registration_id };
    play.daemon.registry().deregister_handlers(leave).await?;
    assert_eq!(play.ended(&id).await?.status(), SagaStatus::Completed);
    Ok(())
}
