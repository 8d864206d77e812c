//! `sagactl` as a shell runs it, against a daemon that answers by rote: what it asks, what it
//! prints, which code it ends with.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

#[path = "cli_golden/fake_daemon.rs"]
mod fake_daemon;

use std::process::{Output, Stdio};

use fake_daemon::{FakeDaemon, Script};
use sagad::proto::{RepairAct, ResolveOutcome, SagaStatus, WaitFor};
use tokio::process::Command;

/// Nobody listens on the port of "discard" of this machine.
const NOBODY: &str = "http://127.0.0.1:9";

async fn sagactl(addr: &str, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sagactl"))
        .args(line.split_whitespace())
        .env("SAGAD_ADDR", addr)
        .env("USER", "mina")
        .env_remove("SAGAD_ACTOR")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .await
        .expect("sagactl was built with this test")
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn without_a_daemon_it_says_how_to_start_one() {
    let (code, out, err) = told(&sagactl(NOBODY, "list").await);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert_eq!(
        err,
        "sagactl: no daemon at http://127.0.0.1:9; start one with `sagad serve` or `sagad dev`\n"
    );
}

#[tokio::test]
async fn a_start_sends_what_was_typed_and_prints_the_saga() {
    let daemon = FakeDaemon::start(Script::default()).await;
    let line =
        r#"start order --id order-1 --version 2 --label region=kr --input {"n":9007199254740993} -o json"#;
    let (code, out, err) = told(&sagactl(daemon.addr(), line).await);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let asked = daemon.started();
    assert_eq!((asked.saga_id.as_str(), asked.definition.as_str(), asked.version), ("order-1", "order", 2));
    assert_eq!(asked.input_json, r#"{"n":9007199254740993}"#);
    assert_eq!(asked.labels.get("region").map(String::as_str), Some("kr"));
    insta::assert_snapshot!(out);
}

#[tokio::test]
async fn a_start_without_an_id_makes_one_so_that_it_can_be_repeated() {
    let daemon = FakeDaemon::start(Script::default()).await;
    let (code, out, _) = told(&sagactl(daemon.addr(), "start order --quiet").await);
    assert_eq!(code, Some(0));
    assert_eq!(out.trim_end(), daemon.started().saga_id);
    assert_eq!(out.trim_end().len(), 36);
}

#[tokio::test]
async fn the_end_of_a_wait_is_its_exit_code() {
    use SagaStatus as S;
    let table = [
        (S::Committed, "wait order-1", 0),
        (S::Completed, "wait order-1 --for ended", 0),
        (S::Compensated, "wait order-1", 3),
        (S::Blocked, "wait order-1 --timeout 1h", 4),
        (S::Running, "wait order-1 --timeout 0", 5),
        (S::Committed, "wait order-1 --for ended --timeout 10ms", 5),
        (S::Abandoned, "wait order-1", 1),
        (S::Compensated, "start order --id order-1 --wait", 3),
        (S::Blocked, "start order --id order-1 --wait=1h --wait-for ended", 4),
        (S::Running, "start order --id order-1 --wait=10ms", 5),
        (S::Compensated, "start order --id order-1", 0),
    ];
    for (status, line, expected) in table {
        let daemon = FakeDaemon::start(Script { status, ..Script::default() }).await;
        let (code, _, err) = told(&sagactl(daemon.addr(), line).await);
        assert_eq!(code, Some(expected), "{line} of a saga that is {status:?}: {err}");
    }
}

#[tokio::test]
async fn a_wait_goes_on_until_the_saga_is_as_far_as_asked() {
    let script = Script {
        status: SagaStatus::Running,
        settles: Some((3, SagaStatus::Completed)),
        ..Script::default()
    };
    let daemon = FakeDaemon::start(script).await;
    let (code, out, _) = told(&sagactl(daemon.addr(), "wait order-1 --for ended --timeout 1h").await);
    assert_eq!((code, out.as_str()), (Some(0), "order-1  COMPLETED\n"));
    assert!(daemon.waited().iter().all(|one| one.wait_for() == WaitFor::Ended));
}

#[tokio::test]
async fn a_refused_start_lists_the_violations() {
    let daemon = FakeDaemon::start(Script { refuses_starts: true, ..Script::default() }).await;
    let (code, out, err) = told(&sagactl(daemon.addr(), "start order --id order-1").await);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    insta::assert_snapshot!(err);
}

#[tokio::test]
async fn a_list_takes_as_many_pages_as_its_limit_needs() {
    let daemon = FakeDaemon::start(Script { sagas: 450, ..Script::default() }).await;
    let (code, out, err) = told(&sagactl(daemon.addr(), "list --limit 0 --quiet").await);
    assert_eq!((code, out.lines().count(), err.as_str()), (Some(0), 450, ""));
    let (_, out, err) = told(&sagactl(daemon.addr(), "list --filter paused=true --limit 201").await);
    assert_eq!(out.lines().count(), 202, "the head and 201 rows");
    assert_eq!(err, "the first 201 of 450; --limit 0 lists all\n");
    assert!(daemon.listed().iter().any(|one| one.filter == "paused=true" && one.page_size == 1));
}

#[tokio::test]
async fn a_count_is_a_bare_number() {
    let daemon = FakeDaemon::start(Script { sagas: 450, ..Script::default() }).await;
    let (code, out, _) = told(&sagactl(daemon.addr(), "count --filter age>10m").await);
    assert_eq!((code, out.as_str()), (Some(0), "450\n"));
    assert!(daemon.listed().iter().all(|one| one.with_total));
}

#[tokio::test]
async fn a_watch_prints_a_line_an_event() {
    let daemon = FakeDaemon::start(Script::default()).await;
    let (code, out, _) = told(&sagactl(daemon.addr(), "watch order-1 --no-follow").await);
    assert_eq!(code, Some(0));
    insta::assert_snapshot!(out);
    let (_, out, _) = told(&sagactl(daemon.addr(), "watch order-1 --after 1 -o json").await);
    let seqs: Vec<_> = out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].clone())
        .collect();
    assert_eq!(seqs, [2, 3]);
}

#[tokio::test]
async fn an_act_with_nobody_to_ask_wants_a_yes_on_the_command_line() {
    let daemon = FakeDaemon::start(Script::default()).await;
    let (code, _, err) = told(&sagactl(daemon.addr(), "retry order-1 --reason fixed").await);
    assert_eq!(code, Some(2));
    assert!(err.contains("pass --yes"), "{err}");
    assert!(daemon.repairs().is_empty());
}

#[tokio::test]
async fn a_dry_run_asks_for_the_plan_only() {
    let daemon = FakeDaemon::start(Script::default()).await;
    let (code, out, _) = told(&sagactl(daemon.addr(), "retry order-1 use-point --dry-run").await);
    assert_eq!(code, Some(0));
    insta::assert_snapshot!(out);
    let asked = daemon.repairs();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].dry_run);
    assert_eq!((asked[0].act(), asked[0].step.as_str()), (RepairAct::RetryNow, "use-point"));
}

#[tokio::test]
async fn an_act_carries_who_and_why() {
    let table = [
        ("cancel order-1 --reason asked --yes", RepairAct::Cancel),
        ("retry order-1 --reason asked --yes", RepairAct::RetryNow),
        ("skip order-1 clear-cart --reason asked --yes", RepairAct::Skip),
        ("resolve order-1 use-point --as done --output {\"n\":1} --reason asked --yes", RepairAct::Resolve),
        ("pause order-1 --reason asked --yes", RepairAct::Pause),
        ("resume order-1 --reason asked --yes", RepairAct::Resume),
        ("abandon order-1 --step use-point --reason asked --yes", RepairAct::Abandon),
    ];
    for (line, act) in table {
        let daemon = FakeDaemon::start(Script::default()).await;
        let (code, _, err) = told(&sagactl(daemon.addr(), line).await);
        assert_eq!(code, Some(0), "{line}: {err}");
        let asked = daemon.repairs();
        assert_eq!(asked.len(), 1, "{line}");
        assert_eq!((asked[0].act(), asked[0].dry_run), (act, false));
        assert_eq!((asked[0].reason.as_str(), asked[0].actor.as_str()), ("asked", "mina"));
        if act == RepairAct::Resolve {
            assert_eq!(
                (asked[0].outcome(), asked[0].output_json.as_str()),
                (ResolveOutcome::Done, "{\"n\":1}")
            );
        }
    }
}

#[tokio::test]
async fn abandoning_without_names_prints_which_effects_stay_and_does_nothing() {
    let daemon = FakeDaemon::start(Script::default()).await;
    let (code, _, err) = told(&sagactl(daemon.addr(), "abandon order-1 --reason lost --yes").await);
    assert_eq!(code, Some(1));
    insta::assert_snapshot!(err);
    assert!(daemon.repairs().iter().all(|one| one.dry_run));
}

#[tokio::test]
async fn files_are_registered_only_when_all_of_them_are_good() {
    let daemon = FakeDaemon::start(Script::default()).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), "saga: a\n").unwrap();
    std::fs::write(folder.path().join("b.yaml"), "bad\n").unwrap();
    let line = format!("def apply {}", folder.path().display());
    let (code, _, err) = told(&sagactl(daemon.addr(), &line).await);
    assert_eq!(code, Some(1), "{err}");
    assert!(daemon.registered().iter().all(|one| one.validate_only));

    std::fs::write(folder.path().join("b.yaml"), "saga: b\n").unwrap();
    let (code, out, _) = told(&sagactl(daemon.addr(), &line).await);
    assert_eq!(code, Some(0));
    let stored: Vec<_> =
        daemon.registered().into_iter().filter(|one| !one.validate_only).map(|one| one.source).collect();
    assert_eq!(stored, ["saga: a\n", "saga: b\n"]);
    assert_eq!(out.lines().filter(|line| line.ends_with(" v1 registered")).count(), 2, "{out}");
}

#[tokio::test]
async fn a_registered_definition_is_drawn() {
    let daemon = FakeDaemon::start(Script::default()).await;
    let (code, out, _) = told(&sagactl(daemon.addr(), "def graph order").await);
    assert_eq!((code, out.lines().nth(3)), (Some(0), Some("flowchart TD")));
}

#[tokio::test]
async fn a_registration_sends_its_actions_and_ttl() {
    let daemon = FakeDaemon::start(Script::default()).await;
    let line = "participant register stock --endpoint http://127.0.0.1:9001 --action deduct --action restore --ttl 1m -q";
    let (code, out, _) = told(&sagactl(daemon.addr(), line).await);
    assert_eq!((code, out.as_str()), (Some(0), "r-1\n"));
    let asked = daemon.registrations();
    let actions: Vec<_> = asked[0].actions.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(actions, ["deduct", "restore"]);
    assert_eq!(asked[0].ttl.map(|ttl| ttl.seconds), Some(60));
}

#[tokio::test]
async fn a_paused_participant_is_shown_with_who_and_why() {
    let daemon = FakeDaemon::start(Script::default()).await;
    let line = "participant pause stock --reason inventory --actor mia";
    let (code, out, _) = told(&sagactl(daemon.addr(), line).await);
    assert_eq!(code, Some(0));
    assert!(out.contains("PAUSED") && out.contains("by mia: inventory"), "{out}");
    let (code, _, err) = told(&sagactl(daemon.addr(), "participant resume stork --reason typo").await);
    assert_eq!(code, Some(1));
    assert!(err.contains("not known"), "{err}");
    let (code, _, err) = told(&sagactl(daemon.addr(), "participant pause stock").await);
    assert_eq!(code, Some(2));
    assert!(err.contains("--reason"), "{err}");
}

#[tokio::test]
async fn what_the_daemon_does_not_serve_is_said_so() {
    let daemon = FakeDaemon::start(Script::default()).await;
    let (code, _, err) = told(&sagactl(daemon.addr(), "stats").await);
    assert_eq!(code, Some(1));
    assert!(err.contains("this daemon does not serve it"), "{err}");
}

#[tokio::test]
async fn files_are_checked_without_a_daemon() {
    let (code, out, err) = told(&sagactl(NOBODY, "def check sagas").await);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("order.yaml");
    std::fs::write(&file, "saga: order\n").unwrap();
    let (code, out, _) = told(&sagactl(NOBODY, &format!("def check {} -o json", file.display())).await);
    let findings: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(1));
    assert_eq!(findings[0]["problems"][0]["line"], 1);
}

#[tokio::test]
async fn completions_need_no_daemon() {
    let (code, out, _) = told(&sagactl(NOBODY, "completions bash").await);
    assert_eq!(code, Some(0));
    assert!(out.contains("complete -F _sagactl"), "{}", out.len());
}
