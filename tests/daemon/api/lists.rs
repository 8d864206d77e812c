//! Lists: their order, pages and totals, and the counts beside them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use sagad::proto::{
    GetStatsRequest, ListOrder, ListSagasRequest, ListSagasResponse, Saga, SagaStatus, StartSagaRequest,
};
use tonic::{Code, Status};

use crate::support::daemon::{Daemon, Launch};
use crate::support::participant::{Answer, Gate};
use crate::support::play::{Play, violations};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

const BODY: &str = "steps: [{ name: only, action: { call: shop.do }, compensation: none }]";

async fn page(daemon: &Daemon, request: &ListSagasRequest) -> Result<ListSagasResponse, Status> {
    Ok(daemon.sagas().list_sagas(request.clone()).await?.into_inner())
}

async fn all(daemon: &Daemon, mut request: ListSagasRequest) -> Result<Vec<Saga>> {
    let mut found = Vec::new();
    loop {
        let page = page(daemon, &request).await?;
        assert!(request.page_size == 0 || page.sagas.len() <= request.page_size as usize);
        found.extend(page.sagas);
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

async fn several(daemon: &Daemon, count: usize) -> Result<Play<'_>> {
    let play = Play::on(daemon, BODY, |_| Answer::done()).await?;
    for n in 0..count {
        play.start(&format!("{n:03}"), "{}").await?;
    }
    for n in 0..count {
        play.ended(&play.id(&format!("{n:03}"))).await?;
    }
    Ok(play)
}

fn of(play: &Play<'_>) -> ListSagasRequest {
    ListSagasRequest { filter: format!("definition = {}", play.name), ..ListSagasRequest::default() }
}

#[tokio::test]
async fn newest_first_unless_asked_otherwise() -> Result<()> {
    let play = several(DAEMON.daemon(), 25).await?;
    let oldest = ListSagasRequest { page_size: 7, order: ListOrder::OldestFirst.into(), ..of(&play) };
    let mut ids: Vec<String> = all(play.daemon, oldest).await?.into_iter().map(|saga| saga.saga_id).collect();
    let expected: Vec<String> = (0..25).map(|n| play.id(&format!("{n:03}"))).collect();
    assert_eq!(ids, expected);
    ids.reverse();
    for order in [ListOrder::Unspecified, ListOrder::NewestFirst] {
        let newest = ListSagasRequest { page_size: 10, order: order.into(), ..of(&play) };
        let found: Vec<String> =
            all(play.daemon, newest).await?.into_iter().map(|saga| saga.saga_id).collect();
        assert_eq!(found, ids);
    }
    Ok(())
}

#[tokio::test]
async fn a_page_without_a_size_has_a_hundred_and_a_list_leaves_the_steps_out() -> Result<()> {
    let play = several(DAEMON.daemon(), 101).await?;
    let first = page(play.daemon, &of(&play)).await?;
    assert_eq!((first.sagas.len(), first.total, first.total_known), (100, 101, true));
    assert!(!first.next_page_token.is_empty());
    assert!(first.sagas.iter().all(|saga| saga.steps.is_empty() && saga.status() == SagaStatus::Completed));
    assert!(first.sagas.iter().all(|saga| saga.seq > 1 && saga.created_at.is_some() && saga.version == 1));
    let next = ListSagasRequest { page_token: first.next_page_token, ..of(&play) };
    let last = page(play.daemon, &next).await?;
    assert_eq!((last.sagas.len(), last.total, last.next_page_token.as_str()), (1, 101, ""));
    let whole = page(play.daemon, &ListSagasRequest { page_size: 1000, ..of(&play) }).await?;
    assert_eq!((whole.sagas.len(), whole.next_page_token.as_str()), (101, ""));
    Ok(())
}

#[tokio::test]
async fn a_page_that_ends_exactly_with_the_list_has_no_successor_with_anything_in_it() -> Result<()> {
    let play = several(DAEMON.daemon(), 4).await?;
    let found = all(play.daemon, ListSagasRequest { page_size: 2, ..of(&play) }).await?;
    assert_eq!(found.len(), 4);
    Ok(())
}

#[tokio::test]
async fn a_token_belongs_to_its_filter_and_order() -> Result<()> {
    let play = several(DAEMON.daemon(), 3).await?;
    let request = ListSagasRequest { page_size: 1, ..of(&play) };
    let token = page(play.daemon, &request).await?.next_page_token;
    let with = |change: ListSagasRequest| ListSagasRequest { page_token: token.clone(), ..change };
    let others = [
        with(ListSagasRequest { filter: "status = COMPLETED".to_owned(), ..request.clone() }),
        with(ListSagasRequest { filter: String::new(), ..request.clone() }),
        with(ListSagasRequest { order: ListOrder::OldestFirst.into(), ..request.clone() }),
        ListSagasRequest { page_token: "garbage".to_owned(), ..request.clone() },
        ListSagasRequest { page_token: "é".repeat(10_000), ..request.clone() },
    ];
    for (n, other) in others.into_iter().enumerate() {
        let status =
            page(play.daemon, &other).await.map(|page| page.sagas.len()).expect_err(&format!("case {n}"));
        assert_eq!(
            (status.code(), violations(&status)),
            (Code::InvalidArgument, vec!["page_token".to_owned()]),
            "{n}"
        );
    }
    let other_size = with(ListSagasRequest { page_size: 2, ..request });
    assert_eq!(page(play.daemon, &other_size).await?.sagas.len(), 2, "the size may change");
    Ok(())
}

#[tokio::test]
async fn too_large_pages_and_unknown_orders_are_refused() -> Result<()> {
    for (field, request) in [
        ("page_size", ListSagasRequest { page_size: 1001, ..ListSagasRequest::default() }),
        ("page_size", ListSagasRequest { page_size: u32::MAX, ..ListSagasRequest::default() }),
        ("order", ListSagasRequest { order: 9, ..ListSagasRequest::default() }),
        ("order", ListSagasRequest { order: -1, ..ListSagasRequest::default() }),
    ] {
        let status = page(DAEMON.daemon(), &request).await.unwrap_err();
        assert_eq!((status.code(), violations(&status)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
    Ok(())
}

#[tokio::test]
async fn totals_without_an_index_are_only_counted_when_asked_for() -> Result<()> {
    let play = several(DAEMON.daemon(), 3).await?;
    let request = ListSagasRequest {
        filter: format!("definition = {} AND paused = false", play.name),
        ..Default::default()
    };
    let unknown = page(play.daemon, &request).await?;
    assert_eq!((unknown.sagas.len(), unknown.total, unknown.total_known), (3, 0, false));
    let counted = page(play.daemon, &ListSagasRequest { with_total: true, ..request }).await?;
    assert_eq!((counted.total, counted.total_known), (3, true));
    let indexed = format!("definition = {} AND status = COMPLETED AND version = 1 AND age < 1h", play.name);
    let indexed = page(play.daemon, &ListSagasRequest { filter: indexed, ..Default::default() }).await?;
    assert_eq!((indexed.total, indexed.total_known), (3, true));
    Ok(())
}

#[tokio::test]
async fn a_saga_that_matches_throughout_is_found_once_while_everything_moves() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let play = Play::on(DAEMON.daemon(), BODY, move |_| held.then(Answer::done())).await?;
    for n in 0..60 {
        play.start(&format!("{n:03}"), "{}").await?;
    }
    let mut request = ListSagasRequest { page_size: 7, ..of(&play) };
    let mut found = Vec::new();
    let mut n = 60;
    loop {
        let page = page(play.daemon, &request).await?;
        found.extend(page.sagas.into_iter().map(|saga| saga.saga_id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        // Meanwhile some begin and some end.
        gate.open();
        play.start(&format!("{n:03}"), "{}").await?;
        play.ended(&play.id(&format!("{:03}", n - 60))).await?;
        n += 1;
    }
    let once: BTreeSet<&String> = found.iter().collect();
    assert_eq!(once.len(), found.len(), "none twice");
    for n in 0..60 {
        assert!(once.contains(&play.id(&format!("{n:03}"))), "{n} is missing");
    }
    Ok(())
}

#[tokio::test]
async fn a_token_survives_a_restart() -> Result<()> {
    let data = tempfile::tempdir()?;
    let daemon = Launch::on(data.path()).start()?;
    let play = several(&daemon, 10).await?;
    let mut request = ListSagasRequest { page_size: 4, ..of(&play) };
    let first = page(&daemon, &request).await?;
    let Play { shop: _shop, .. } = play;
    daemon.kill()?;
    let daemon = Launch::on(data.path()).start()?;
    request.page_token = first.next_page_token;
    let rest = all(&daemon, request).await?;
    let ids: BTreeSet<String> = first.sagas.into_iter().chain(rest).map(|saga| saga.saga_id).collect();
    assert_eq!(ids.len(), 10);
    Ok(())
}

#[tokio::test]
async fn the_counts_are_exact_also_after_a_restart() -> Result<()> {
    let data = tempfile::tempdir()?;
    let daemon = Launch::on(data.path()).start()?;
    let gate = Gate::closed();
    let held = gate.clone();
    let body = "steps:
  - { name: only, action: { call: shop.do }, compensation: { call: shop.undo } }
  - { name: side, kind: retriable, action: { call: shop.side, input: { x: \"${1 / input.n}\" } } }";
    let play = Play::on(&daemon, body, move |call| match call.saga.rsplit('/').next().unwrap_or_default() {
        end if end.starts_with("refused") => Answer::Refused("NO", "no"),
        end if end.starts_with("flying") => held.then(Answer::done()),
        _ => Answer::done(),
    })
    .await?;
    for n in 0..3 {
        play.run(&format!("done-{n}"), r#"{"n":1}"#).await?;
        play.run(&format!("refused-{n}"), r#"{"n":1}"#).await?;
    }
    for n in 0..2 {
        let id = play.start(&format!("flying-{n}"), r#"{"n":1}"#).await?;
        play.shop.seen(|call| call.saga == id).await;
    }
    let blocked = play.start("blocked", r#"{"n":0}"#).await?;
    play.blocked(&blocked).await?;
    let expected = BTreeMap::from([
        (SagaStatus::Completed as i32, 3),
        (SagaStatus::Compensated as i32, 3),
        (SagaStatus::Running as i32, 2),
        (SagaStatus::Blocked as i32, 1),
    ]);
    counts(&daemon, &play.name, &expected).await?;
    let stats = daemon.operations().get_stats(GetStatsRequest {}).await?.into_inner();
    assert_eq!(stats.in_flight_calls, 2);
    assert!(!stats.version.is_empty() && stats.uptime.is_some());
    assert!(stats.store.context("store figures")?.commits > 0);
    let Play { shop: _shop, name, .. } = play;
    daemon.kill()?;
    counts(&Launch::on(data.path()).start()?, &name, &expected).await
}

async fn counts(daemon: &Daemon, definition: &str, expected: &BTreeMap<i32, u64>) -> Result<()> {
    let stats = daemon.operations().get_stats(GetStatsRequest {}).await?.into_inner();
    let by_status: BTreeMap<i32, u64> =
        stats.by_status.iter().filter(|c| c.count > 0).map(|c| (c.status, c.count)).collect();
    assert_eq!(&by_status, expected);
    let by_definition: BTreeMap<i32, u64> =
        stats.by_definition.iter().map(|count| (count.status, count.count)).collect();
    assert_eq!(&by_definition, expected);
    assert!(stats.by_definition.iter().all(|count| count.definition == definition && count.version == 1));
    assert_eq!(stats.stuck, 1);
    let all = page(daemon, &ListSagasRequest::default()).await?.sagas;
    let open = all.iter().filter(|saga| saga.ended_at.is_none()).filter_map(|saga| saga.created_at);
    let oldest = open.min_by_key(|at| (at.seconds, at.nanos));
    assert_eq!(stats.oldest_open_started_at, oldest);
    for (status, count) in expected {
        let word = SagaStatus::try_from(*status)?.as_str_name().trim_start_matches("SAGA_STATUS_").to_owned();
        let request = ListSagasRequest { filter: format!("status = {word}"), ..Default::default() };
        let listed = page(daemon, &request).await?;
        assert_eq!((listed.total, listed.sagas.len() as u64), (*count, *count), "{word}");
    }
    Ok(())
}

#[tokio::test]
async fn an_empty_store_lists_nothing() -> Result<()> {
    let data = tempfile::tempdir()?;
    let daemon = Launch::on(data.path()).start()?;
    let empty = page(&daemon, &ListSagasRequest::default()).await?;
    assert_eq!(
        (empty.sagas.len(), empty.total, empty.total_known, empty.next_page_token.as_str()),
        (0, 0, true, "")
    );
    let asked = std::time::SystemTime::now();
    let figures = daemon.operations().get_stats(GetStatsRequest {}).await?.into_inner();
    let since = std::time::SystemTime::try_from(figures.oldest_open_started_at.context("always set")?)?;
    let apart = since.duration_since(asked).unwrap_or_else(|error| error.duration());
    assert!(apart < std::time::Duration::from_mins(1), "nothing is open, so no call was made before now");
    let status = daemon.sagas().start_saga(StartSagaRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    Ok(())
}
