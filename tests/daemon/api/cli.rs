//! `sagactl` against the real daemon: what it prints, and the code it ends with.

use std::process::{Output, Stdio};

use anyhow::Result;
use tokio::process::Command;

use crate::support::participant::{Answer, Gate};
use crate::support::play::{Play, step};
use crate::support::shared::Shared;

static DAEMON: Shared = Shared::new();

const ORDER: &str = "description: Places an order.
steps:
  - { name: take, action: { call: shop.take, input: { n: \"${input.n}\" } }, compensation: { call: shop.back } }
  - { name: order, action: { call: shop.order }, compensation: none }
  - { name: mail, kind: retriable, action: { call: shop.mail } }
output: { n: \"${steps.take.n}\" }";

async fn sagactl(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sagactl"))
        .args(words)
        .env("SAGAD_ADDR", format!("http://{}", DAEMON.daemon().grpc))
        .env("USER", "mina")
        .env("NO_COLOR", "1")
        .env("COLUMNS", "100")
        .env_remove("SAGAD_ACTOR")
        .stdin(Stdio::null())
        .output()
        .await
        .expect("sagactl was built with this test")
}

/// Exit code, standard output, standard error.
async fn ran(words: &[&str]) -> (Option<i32>, String, String) {
    let output = sagactl(words).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The exit code alone, with everything else in the message when it is another one.
async fn ends(code: i32, words: &[&str]) -> String {
    let (found, out, err) = ran(words).await;
    assert_eq!(found, Some(code), "sagactl {words:?}\n{out}\n{err}");
    out
}

/// What differs from run to run, replaced.
fn settings(play: &Play<'_>) -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    // Names before times: a name may end in digits. A column is as wide as what stands in it.
    settings.add_filter(&format!("{}(/[a-z]+)?", play.name), "PLAY$1");
    settings.add_filter(&play.participant, "SHOP");
    settings.add_filter(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| UTC)?", "[time]");
    settings.add_filter(r"\b\d\d:\d\d:\d\d(\.\d+)?\b", "[time]");
    settings.add_filter(r"\b\d+(\.\d+)?(ms|s|us|µs|m|h)( ago)?\b", "[span]");
    settings.add_filter("[0-9a-f]{64}", "[digest]");
    settings.add_filter(r"\b[0-9a-f]{12}\b", "[digest]");
    settings.add_filter(r"  +", "  ");
    settings.add_filter(r"[─-]{3,}", "---");
    settings
}

async fn ordering() -> Result<Play<'static>> {
    Play::on(DAEMON.daemon(), ORDER, |call| {
        match (call.saga.rsplit('/').next(), call.action.as_str(), call.attempt) {
            (Some("refused" | "stuck"), "order", _) => Answer::Refused("EMPTY", "none left"),
            (Some("stuck"), "back", 1) => Answer::Refused("CLOSED", "the account is closed"),
            (Some("slow"), "order", _) => Gate::closed().then(Answer::Hang),
            (_, "take", _) => Answer::Done(call.input.clone()),
            _ => Answer::done(),
        }
    })
    .await
}

#[tokio::test]
async fn an_order_from_start_to_end() -> Result<()> {
    let play = ordering().await?;
    let id = play.id("good");
    let input = r#"{"n":9007199254740993}"#;
    let start = [
        "start",
        &play.name,
        "--id",
        &id,
        "--input",
        input,
        "--label",
        "region=kr",
        "--wait",
        "--wait-for",
        "ended",
    ];
    let started = ends(0, &start).await;
    assert!(started.contains("COMPLETED"), "{started}");
    assert_eq!(ends(0, &["wait", &id, "--for", "ended"]).await.split_whitespace().nth(1), Some("COMPLETED"));
    let filter = format!("definition = {} AND label.region = kr", play.name);
    assert_eq!(ends(0, &["count", "--filter", &filter]).await, "1\n");
    assert_eq!(ends(0, &["list", "--filter", &filter, "--quiet"]).await, format!("{id}\n"));
    let json: serde_json::Value = serde_json::from_str(&ends(0, &["get", &id, "-o", "json"]).await)?;
    assert!(json.to_string().contains("9007199254740993"), "{json}");
    let (get, why) = (ends(0, &["get", &id]).await, ends(0, &["why", &id]).await);
    let watch = ends(0, &["watch", &id]).await;
    settings(&play).bind(|| {
        insta::assert_snapshot!("a_completed_saga", get);
        insta::assert_snapshot!("why_a_completed_saga", why);
        insta::assert_snapshot!("the_history_of_a_completed_saga", watch);
    });
    Ok(())
}

#[tokio::test]
async fn the_exit_code_tells_how_the_saga_ended() -> Result<()> {
    let play = ordering().await?;
    let (good, refused, stuck, slow) =
        (play.id("good"), play.id("refused"), play.id("stuck"), play.id("slow"));
    let started = |id: &str| ["start".to_owned(), play.name.clone(), "--id".to_owned(), id.to_owned()];
    for (code, id, wait) in
        [(0, &good, "--wait"), (3, &refused, "--wait"), (4, &stuck, "--wait"), (5, &slow, "--wait=200ms")]
    {
        let words = started(id);
        let words: Vec<&str> = words.iter().map(String::as_str).chain([wait]).collect();
        ends(code, &words).await;
        ends(code, &["wait", id, "--timeout", "200ms"]).await;
    }
    ends(1, &["get", "never-started"]).await;
    ends(1, &["start", "no-such-definition"]).await;
    ends(1, &["start", &play.name, "--id", &good, "--input", r#"{"n":1}"#]).await;
    ends(1, &["list", "--filter", "colour = red"]).await;
    ends(1, &["cancel", &good, "--reason", "too late", "--yes"]).await;
    ends(2, &["list", "--no-such-flag"]).await;
    ends(2, &["cancel", &slow]).await;
    ends(0, &["cancel", &slow, "--reason", "no longer wanted", "--yes"]).await;
    Ok(())
}

#[tokio::test]
async fn a_stuck_saga_is_found_explained_and_repaired() -> Result<()> {
    let play = ordering().await?;
    let id = play.id("stuck");
    ends(4, &["start", &play.name, "--id", &id, "--input", r#"{"n":1}"#, "--wait"]).await;
    let stuck = ends(0, &["stuck"]).await;
    assert!(stuck.contains(&id) && stuck.contains("the account is closed"), "{stuck}");
    let (get, why) = (ends(0, &["get", &id]).await, ends(0, &["why", &id]).await);
    let dry_run = ends(0, &["skip", &id, "take", "--dry-run"]).await;
    let abandon = ran(&["abandon", &id, "--reason", "given up", "--yes"]).await;
    settings(&play).bind(|| {
        insta::assert_snapshot!("a_blocked_saga", get);
        insta::assert_snapshot!("why_a_blocked_saga", why);
        insta::assert_snapshot!("what_waiving_would_lead_to", dry_run);
        insta::assert_snapshot!("abandoning_without_naming_what_stays", format!("{abandon:?}"));
    });
    assert_eq!(step(&play.get(&id).await?, "take").compensation_attempts, 1, "looking changes nothing");
    ends(0, &["pause", &id, "--reason", "let me look", "--yes"]).await;
    ends(0, &["resume", &id, "--reason", "go on", "--yes"]).await;
    ends(0, &["retry", &id, "take", "--reason", "the account is open again", "--yes"]).await;
    ends(3, &["wait", &id, "--for", "ended"]).await;
    let history = play.history(&id).await?;
    let acts: Vec<_> = history.iter().filter(|event| event.r#type == "operator_act").collect();
    assert!(acts.len() == 3 && acts.iter().all(|act| act.actor.contains("mina")), "{acts:#?}");
    Ok(())
}

#[tokio::test]
async fn the_command_that_why_suggests_can_be_typed_as_it_is() -> Result<()> {
    let play = ordering().await?;
    let id = play.id("stuck");
    ends(4, &["start", &play.name, "--id", &id, "--wait"]).await;
    let suggested = play.explain(&id).await?.suggested_command;
    let words = suggested.strip_prefix("sagactl ").expect("it is for sagactl").to_owned();
    let shell = Command::new("sh")
        .args(["-c", &format!("\"$SAGACTL\" {words} --yes")])
        .env("SAGACTL", env!("CARGO_BIN_EXE_sagactl"))
        .env("SAGAD_ADDR", format!("http://{}", DAEMON.daemon().grpc))
        .stdin(Stdio::null())
        .output()
        .await?;
    assert!(shell.status.success(), "{suggested}: {}", String::from_utf8_lossy(&shell.stderr));
    ends(3, &["wait", &id, "--for", "ended"]).await;
    Ok(())
}

#[tokio::test]
async fn definitions_are_checked_applied_shown_and_retired() -> Result<()> {
    let play = ordering().await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("order.yaml");
    let path = file.display().to_string();
    std::fs::write(
        &file,
        play.source(
            "description: New.\nsteps: [{ name: only, action: { call: shop.take }, compensation: none }]\n",
        ),
    )?;
    ends(0, &["def", "check", &path]).await;
    ends(0, &["def", "apply", &path]).await;
    ends(0, &["def", "apply", &path]).await;
    let shown = ends(0, &["def", "show", &play.name]).await;
    let graph = ends(0, &["def", "graph", &play.name, "--version", "1"]).await;
    assert!(ends(0, &["def", "list"]).await.contains(&play.name));
    ends(0, &["def", "retire", &play.name, "2"]).await;
    let retired = ends(0, &["def", "show", &play.name]).await;
    assert_ne!(shown, retired);
    ends(0, &["start", &play.name, "--wait"]).await;
    ends(0, &["def", "retire", &play.name, "1"]).await;
    ends(1, &["start", &play.name]).await;
    std::fs::write(&file, "saga: broken\nsteps: [{ name: A, action: { call: x }, compensation: none }]\n")?;
    let (code, _, said) = ran(&["def", "apply", &path]).await;
    assert!(code == Some(1) && said.contains("order.yaml") && said.contains("line 2, column 17"), "{said}");
    settings(&play).bind(|| {
        insta::assert_snapshot!("a_definition", shown);
        insta::assert_snapshot!("a_definition_as_a_graph", graph);
    });
    Ok(())
}

#[tokio::test]
async fn participants_and_figures_are_shown() -> Result<()> {
    let play = ordering().await?;
    let listed = ends(0, &["participant", "list"]).await;
    assert!(listed.contains(&play.participant), "{listed}");
    let other = format!("{}-2", play.participant);
    ends(0, &["participant", "register", &other, "--endpoint", "http://127.0.0.1:9", "--action", "do"]).await;
    assert!(ends(0, &["participant", "list"]).await.contains(&other));
    ends(1, &["participant", "register", "a.b", "--endpoint", "http://127.0.0.1:9", "--action", "do"]).await;
    let stats: serde_json::Value = serde_json::from_str(&ends(0, &["stats", "-o", "json"]).await)?;
    assert!(stats.is_object() && ends(0, &["stats"]).await.contains(env!("CARGO_PKG_VERSION")));
    Ok(())
}
