//! Definitions: versions, retirement, what registration refuses and where.

use anyhow::{Context as _, Result};
use sagad::proto::{
    DefinitionStep, GetDefinitionRequest, ListDefinitionsRequest, RegisterDefinitionRequest,
    RegisterDefinitionResponse, RetireDefinitionRequest, SagaStatus, StepKind,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::daemon::{Daemon, Launch};
use crate::support::participant::{Answer, Gate};
use crate::support::play::{Play, unique, violations};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

fn source(name: &str, description: &str) -> String {
    format!(
        "saga: {name}\ndescription: {description}\nsteps: [{{ name: only, action: {{ call: shop.do }}, compensation: none }}]\n"
    )
}

async fn register(source: &str) -> Result<RegisterDefinitionResponse, Status> {
    let request = RegisterDefinitionRequest { source: source.to_owned(), validate_only: false };
    Ok(DAEMON.daemon().definitions().register_definition(request).await?.into_inner())
}

async fn get(daemon: &Daemon, name: &str, version: u32) -> Result<sagad::proto::Definition, Status> {
    let request = GetDefinitionRequest { name: name.to_owned(), version };
    let answer = daemon.definitions().get_definition(request).await?.into_inner();
    answer.definition.ok_or_else(|| Status::internal("no definition in the answer"))
}

async fn retire(name: &str, version: u32) -> Result<sagad::proto::Definition, Status> {
    let request = RetireDefinitionRequest { name: name.to_owned(), version };
    let answer = DAEMON.daemon().definitions().retire_definition(request).await?.into_inner();
    answer.definition.ok_or_else(|| Status::internal("no definition in the answer"))
}

#[tokio::test]
async fn versions_count_up_and_the_same_source_is_the_same_version() -> Result<()> {
    let name = unique("counted");
    let first = register(&source(&name, "one")).await?;
    let second = register(&source(&name, "two")).await?;
    let (one, two) = (first.definition.context("one")?, second.definition.context("two")?);
    assert_eq!((first.existed, second.existed, one.version, two.version), (false, false, 1, 2));
    assert_ne!(one.digest, two.digest);
    let again = register(&source(&name, "one")).await?;
    assert_eq!((again.existed, again.definition.as_ref().context("one")?.version), (true, 1));
    assert_eq!(
        get(DAEMON.daemon(), &name, 0).await?.version,
        2,
        "an older source does not become the newest"
    );
    let white_space = register(&format!("{}\n", source(&name, "two"))).await?;
    assert_eq!(white_space.definition.context("three")?.version, 3, "the bytes count");
    Ok(())
}

#[tokio::test]
async fn the_digest_is_the_sha_256_of_the_source() -> Result<()> {
    use sha2::Digest as _;
    let text = source(&unique("digested"), "é");
    let found = register(&text).await?.definition.context("a definition")?;
    let hash = sha2::Sha256::digest(text.as_bytes());
    let expected = format!("{hash:x}");
    assert_eq!((found.digest, found.source), (expected, text));
    Ok(())
}

#[tokio::test]
async fn a_definition_is_read_back_as_it_was_understood() -> Result<()> {
    let name = unique("read");
    let text = format!(
        "saga: {name}
description: For reading.
steps:
  - {{ name: one, for_each: \"${{input.items}}\", action: {{ call: stock.take }}, compensation: {{ call: stock.back }} }}
  - {{ name: two, after: [one], when: \"${{input.pay}}\", probe: {{ call: bank.look }}, kind: pivot, action: {{ call: bank.a.b }} }}
  - {{ name: three, kind: retriable, action: {{ call: mail.send }} }}
"
    );
    register(&text).await?;
    let found = get(DAEMON.daemon(), &name, 1).await?;
    assert_eq!((found.description.as_str(), found.active, found.source), ("For reading.", true, text));
    assert!(found.created_at.is_some());
    let step = |name: &str, kind: StepKind, after: &[&str], action: &str| DefinitionStep {
        name: name.to_owned(),
        kind: kind.into(),
        after: after.iter().map(|s| (*s).to_owned()).collect(),
        action: action.to_owned(),
        ..DefinitionStep::default()
    };
    let mut one = step("one", StepKind::Compensatable, &[], "stock.take");
    one.compensation = "stock.back".to_owned();
    one.for_each = found.steps[0].for_each.clone();
    let mut two = step("two", StepKind::Pivot, &["one"], "bank.a.b");
    two.probe = "bank.look".to_owned();
    two.when = found.steps[1].when.clone();
    assert!(one.for_each.contains("input.items") && two.when.contains("input.pay"), "{:#?}", found.steps);
    assert_eq!(found.steps, [one, two, step("three", StepKind::Retriable, &["two"], "mail.send")]);
    Ok(())
}

#[tokio::test]
async fn checking_alone_stores_nothing() -> Result<()> {
    let name = unique("checked");
    let request = RegisterDefinitionRequest { source: source(&name, "x"), validate_only: true };
    let answer = DAEMON.daemon().definitions().register_definition(request.clone()).await?.into_inner();
    assert_eq!((answer.existed, answer.definition.context("a definition")?.version), (false, 1));
    assert_eq!(get(DAEMON.daemon(), &name, 0).await.unwrap_err().code(), Code::NotFound);
    register(&source(&name, "x")).await?;
    let answer = DAEMON.daemon().definitions().register_definition(request).await?.into_inner();
    assert!(answer.existed);
    Ok(())
}

#[tokio::test]
async fn a_participant_nobody_registered_is_a_warning() -> Result<()> {
    let absent = unique("absent");
    let text = source(&unique("warned"), "x").replace("shop.do", &format!("{absent}.do"));
    let warnings = register(&text).await?.warnings;
    assert!(warnings.iter().any(|warning| warning.contains(&absent)), "{warnings:?}");
    let body = "steps: [{ name: only, action: { call: shop.do }, compensation: none }]";
    let play = Play::on(DAEMON.daemon(), body, |_| Answer::done()).await?;
    let request = RegisterDefinitionRequest { source: play.source(body), validate_only: true };
    let answer = play.daemon.definitions().register_definition(request).await?.into_inner();
    assert_eq!(answer.warnings, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_retired_version_is_active_again_when_its_source_is_registered_again() -> Result<()> {
    let name = unique("retired");
    register(&source(&name, "one")).await?;
    assert!(!retire(&name, 1).await?.active);
    assert!(!retire(&name, 1).await?.active, "retiring it again is fine");
    assert!(!get(DAEMON.daemon(), &name, 0).await?.active);
    let again = register(&source(&name, "one")).await?;
    assert!(again.existed && again.definition.context("one")?.active);
    assert!(get(DAEMON.daemon(), &name, 1).await?.active);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_retired_or_read_is_refused_by_its_reason() -> Result<()> {
    let name = unique("some");
    register(&source(&name, "one")).await?;
    assert_eq!(retire(&name, 2).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(retire(&unique("nobody"), 1).await.unwrap_err().code(), Code::NotFound);
    let zero = retire(&name, 0).await.unwrap_err();
    assert_eq!((zero.code(), violations(&zero)), (Code::InvalidArgument, vec!["version".to_owned()]));
    assert_eq!(get(DAEMON.daemon(), &name, 2).await.unwrap_err().code(), Code::NotFound);
    for wrong in ["", "a b", &"x".repeat(129)] {
        let status = get(DAEMON.daemon(), wrong, 0).await.unwrap_err();
        assert_eq!((status.code(), violations(&status)), (Code::InvalidArgument, vec!["name".to_owned()]));
    }
    Ok(())
}

#[tokio::test]
async fn a_running_saga_stays_on_its_version_also_over_a_restart() -> Result<()> {
    let data = tempfile::tempdir()?;
    let daemon = Launch::on(data.path()).start()?;
    let gate = Gate::closed();
    let held = gate.clone();
    let body = "steps:
  - { name: one, action: { call: shop.slow }, compensation: none }
  - { name: two, action: { call: shop.old }, compensation: none }";
    let play = Play::on(&daemon, body, move |call| match call.action.as_str() {
        "slow" => held.then(Answer::done()),
        _ => Answer::done(),
    })
    .await?;
    let id = play.start("a", "{}").await?;
    play.shop.seen(|call| call.step == "one").await;
    let newer = body.replace("shop.old", "shop.new");
    assert_eq!(play.define(&newer).await?.version, 2);
    let request = RetireDefinitionRequest { name: play.name.clone(), version: 1 };
    daemon.definitions().retire_definition(request).await?;
    let before = play.get(&id).await?;
    let Play { shop, participant, name, .. } = play;
    daemon.kill()?;
    let daemon = Launch::on(data.path()).start()?;
    let play = Play { daemon: &daemon, shop, participant, name };
    gate.open();
    let ended = play.ended(&id).await?;
    assert_eq!((ended.status(), ended.version), (SagaStatus::Completed, 1));
    assert_eq!(ended.digest, before.digest);
    assert!(play.shop.calls_of(&id).iter().any(|call| call.action == "old"));
    assert!(play.shop.calls_of(&id).iter().all(|call| call.action != "new"));
    let (one, two) = (get(&daemon, &play.name, 1).await?, get(&daemon, &play.name, 2).await?);
    assert_eq!((one.active, two.active), (false, true), "retirement survives too");
    Ok(())
}

#[tokio::test]
async fn lists_are_in_order_of_name_and_version_and_have_pages() -> Result<()> {
    let stem = unique("listed");
    for name in ["b", "a"] {
        for description in ["one", "two", "three"] {
            register(&source(&format!("{stem}-{name}"), description)).await?;
        }
    }
    retire(&format!("{stem}-a"), 2).await?;
    let mut request = ListDefinitionsRequest { page_size: 4, ..ListDefinitionsRequest::default() };
    let mut found = Vec::new();
    loop {
        let page = DAEMON.daemon().definitions().list_definitions(request.clone()).await?.into_inner();
        assert!(page.definitions.len() <= 4);
        assert!(page.definitions.iter().all(|one| one.source.is_empty() && one.steps.is_empty()));
        found.extend(page.definitions.into_iter().map(|one| (one.name, one.version)));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert!(found.is_sorted());
    found.retain(|(name, _)| name.starts_with(&stem));
    let expected: Vec<_> = ["a", "b"].iter().flat_map(|n| (1..=3).map(move |v| (n, v))).collect();
    let expected: Vec<_> = expected.into_iter().map(|(n, v)| (format!("{stem}-{n}"), v)).collect();
    assert_eq!(found, expected);
    let request =
        ListDefinitionsRequest { name: format!("{stem}-a"), active_only: true, ..Default::default() };
    let page = DAEMON.daemon().definitions().list_definitions(request).await?.into_inner();
    assert_eq!(page.definitions.iter().map(|one| one.version).collect::<Vec<_>>(), [1, 3]);
    Ok(())
}

#[tokio::test]
async fn a_page_token_belongs_to_its_request() -> Result<()> {
    for description in ["one", "two"] {
        register(&source(&unique("paged"), description)).await?;
    }
    let request = ListDefinitionsRequest { page_size: 1, ..Default::default() };
    let page = DAEMON.daemon().definitions().list_definitions(request.clone()).await?.into_inner();
    let other =
        ListDefinitionsRequest { active_only: true, page_token: page.next_page_token, ..request.clone() };
    let garbage = ListDefinitionsRequest { page_token: "garbage".to_owned(), ..request.clone() };
    let huge = ListDefinitionsRequest { page_size: 1001, ..request };
    for (field, request) in [("page_token", other), ("page_token", garbage), ("page_size", huge)] {
        let status = DAEMON.daemon().definitions().list_definitions(request).await.unwrap_err();
        assert_eq!((status.code(), violations(&status)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
    Ok(())
}

#[tokio::test]
async fn each_broken_rule_is_refused_with_its_place() -> Result<()> {
    let call = "action: { call: shop.do }, compensation: none";
    let cases = [
        ("no steps", "steps: []".to_owned()),
        ("no compensation", "steps: [{ name: a, action: { call: shop.do } }]".to_owned()),
        ("twice the same name", format!("steps: [{{ name: a, {call} }}, {{ name: a, {call} }}]")),
        ("an unknown predecessor", format!("steps: [{{ name: a, after: [b], {call} }}]")),
        ("a cycle", format!("steps: [{{ name: a, after: [b], {call} }}, {{ name: b, after: [a], {call} }}]")),
        ("itself", format!("steps: [{{ name: a, after: [a], {call} }}]")),
        ("an unknown field", format!("stepz: 1\nsteps: [{{ name: a, {call} }}]")),
        ("a bad name", format!("steps: [{{ name: A, {call} }}]")),
        ("a call without a dot", "steps: [{ name: a, action: { call: shop }, compensation: none }]".to_owned()),
        ("an unclosed expression", "steps: [{ name: a, action: { call: s.a, input: { x: \"${input.\" } }, compensation: none }]".to_owned()),
        ("an unknown variable", "steps: [{ name: a, action: { call: s.a, input: { x: \"${nobody}\" } }, compensation: none }]".to_owned()),
        ("its own output", "steps: [{ name: a, action: { call: s.a, input: { x: \"${steps.a}\" } }, compensation: none }]".to_owned()),
        ("a step it does not depend on", format!("steps: [{{ name: a, after: [], {call} }}, {{ name: b, after: [], action: {{ call: s.a, input: {{ x: \"${{steps.a}}\" }} }}, compensation: none }}]")),
        ("two pivots", "steps: [{ name: a, kind: pivot, action: { call: s.a } }, { name: b, kind: pivot, action: { call: s.a } }]".to_owned()),
        ("a compensatable step behind the pivot", format!("steps: [{{ name: a, kind: pivot, action: {{ call: s.a }} }}, {{ name: b, {call} }}]")),
        ("a compensatable step behind a retriable one", format!("steps: [{{ name: a, kind: retriable, action: {{ call: s.a }} }}, {{ name: b, {call} }}]")),
        ("a pivot with a compensation", "steps: [{ name: a, kind: pivot, action: { call: s.a }, compensation: { call: s.b } }]".to_owned()),
        ("an output that reads side work", format!("steps: [{{ name: a, {call} }}, {{ name: b, kind: retriable, action: {{ call: s.a }} }}]\noutput: \"${{steps.b}}\"")),
        ("a bad span of time", format!("deadline: soon\nsteps: [{{ name: a, {call} }}]")),
        ("a duplicate key", format!("steps: [{{ name: a, name: b, {call} }}]")),
        ("no mapping", "- 1".to_owned()),
        ("item outside a fan-out", "steps: [{ name: a, action: { call: s.a, input: { x: \"${item}\" } }, compensation: none }]".to_owned()),
    ];
    for (what, body) in cases {
        let name = unique("broken");
        let status = register(&format!("saga: {name}\n{body}\n")).await.expect_err(what);
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
        let details = status.get_details_bad_request().with_context(|| format!("{what}: no details"))?;
        let place = details.field_violations.iter().any(|v| {
            v.field.starts_with("source")
                && format!("{} {}", v.field, v.description).chars().any(|c| c.is_ascii_digit())
        });
        assert!(place, "{what}: {:?}", details.field_violations);
        assert_eq!(get(DAEMON.daemon(), &name, 0).await.unwrap_err().code(), Code::NotFound, "{what}");
    }
    Ok(())
}

#[tokio::test]
async fn every_problem_of_a_source_is_told_at_once() -> Result<()> {
    let text = format!(
        "saga: {}\ndeadline: soon\nsteps:\n  - {{ name: A, action: {{ call: shop }} }}\n  - {{ name: b, after: [c], action: {{ call: s.a, input: \"${{x}}\" }}, compensation: none }}\n",
        unique("all-wrong")
    );
    let status = register(&text).await.unwrap_err();
    let found = status.get_details_bad_request().context("details")?.field_violations.len();
    assert!(found >= 5, "{found} of at least five: {status:?}");
    Ok(())
}

#[tokio::test]
async fn hostile_sources_are_refused_quickly() -> Result<()> {
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\nsaga: x\nsteps: *f";
    let deep = format!("saga: x\nsteps: {}{}", "[".repeat(20_000), "]".repeat(20_000));
    let parens = format!(
        "saga: x\nsteps: [{{ name: a, action: {{ call: s.a, input: {{ x: \"${{{}1{}}}\" }} }}, compensation: none }}]",
        "(".repeat(5_000),
        ")".repeat(5_000)
    );
    let huge = format!("saga: x\ndescription: {}\nsteps: []", "x".repeat(3 * 1024 * 1024));
    for (what, text) in [("empty", ""), ("bomb", bomb), ("deep", &deep), ("parens", &parens), ("huge", &huge)]
    {
        let refused = tokio::time::timeout(std::time::Duration::from_secs(10), register(text)).await;
        let status = refused.with_context(|| what.to_owned())?.expect_err(what);
        let expected = [Code::InvalidArgument, Code::ResourceExhausted, Code::OutOfRange];
        assert!(expected.contains(&status.code()), "{what}: {status:?}");
    }
    assert!(register(&source(&unique("after"), "all is well")).await.is_ok());
    Ok(())
}

#[tokio::test]
async fn two_clients_registering_at_once_share_one_version() -> Result<()> {
    let name = unique("raced");
    let text = source(&name, "same");
    let answers = futures::future::join_all((0..8).map(|_| register(&text))).await;
    let made = answers.into_iter().map(|a| a.map(|a| !a.existed)).collect::<Result<Vec<_>, _>>()?;
    assert_eq!(made.into_iter().filter(|made| *made).count(), 1);
    let differing = (0..8).map(|n| source(&name, &n.to_string())).collect::<Vec<_>>();
    let answers = futures::future::join_all(differing.iter().map(|text| register(text))).await;
    let mut versions: Vec<u32> = answers
        .into_iter()
        .map(|a| a.map(|a| a.definition.unwrap_or_default().version))
        .collect::<Result<_, _>>()?;
    versions.sort_unstable();
    assert_eq!(versions, [2, 3, 4, 5, 6, 7, 8, 9]);
    Ok(())
}
