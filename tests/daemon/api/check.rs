//! `sagactl participant check` against real services: a good one of each protocol, and bad ones.

use std::collections::{HashMap, HashSet};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::process::Command;
use tonic::{Code, Status};

use crate::support::http_service::{Asked, HttpService, Told};
use crate::support::participant::{Answer, Call, Ledger, Participant};
use crate::support::sample_service::{Reflects, Sample, Says, Seen, compile};

/// What is wrong with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Makes a new order on every call.
    NewAnswers,
    /// Says 409 to a key that it knows.
    KnownIsAConflict,
    /// Keeps a key for good whose caller has hung up.
    StaysInProgress,
    /// Says 500 to what must be refused.
    RefusesByError,
    /// Does what must be refused.
    RefusesNothing,
    /// Takes whatever comes for good.
    EatsGarbage,
    /// Refuses to undo what it never did.
    RefusesEmpty,
    /// Refuses to undo twice.
    UndoesOnce,
    /// Does what was undone before.
    TakesLate,
    /// Does nothing at all.
    Down,
}

#[derive(Debug, Default)]
struct Entry {
    answer: Option<Told>,
    is_undone: bool,
}

/// A service that keeps the answers to its keys, but for its fault.
#[derive(Debug)]
struct Shop {
    fault: Fault,
    orders: u32,
    entries: HashMap<String, Entry>,
}

impl Shop {
    fn answer(&mut self, asked: &Asked) -> Told {
        if self.fault == Fault::Down {
            return Told::json(503, "");
        }
        let key = asked.header("sagad-action-idempotency-key").to_owned();
        if asked.line.ends_with("/restore") { self.restore(key) } else { self.deduct(key, asked) }
    }

    fn deduct(&mut self, key: String, asked: &Asked) -> Told {
        if self.fault == Fault::StaysInProgress && asked.header("sagad-step") == "abandoned" {
            return Told::json(409, r#"{"code":"IN_PROGRESS"}"#);
        }
        let entry = self.entries.entry(key).or_default();
        if let Some(known) = &entry.answer {
            match self.fault {
                Fault::NewAnswers => {}
                Fault::KnownIsAConflict => return Told::json(409, ""),
                _ => return known.clone(),
            }
        }
        if entry.is_undone && self.fault != Fault::TakesLate {
            return Told::json(410, r#"{"code":"SUPERSEDED","message":"it was undone before"}"#);
        }
        let input: Option<Value> = serde_json::from_str(&asked.body).ok();
        let amount = input.as_ref().and_then(|input| input["amount"].as_u64());
        let answer = match amount {
            None if self.fault == Fault::EatsGarbage => Told::json(200, "{}"),
            None => return Told::json(400, r#"{"code":"INVALID","message":"no amount"}"#),
            Some(0) if self.fault == Fault::RefusesByError => return Told::json(500, ""),
            Some(0) if self.fault != Fault::RefusesNothing => Told::json(422, r#"{"code":"EMPTY"}"#),
            Some(_) => {
                self.orders += 1;
                Told::json(201, &format!("{{\"order\":{}}}", self.orders))
            }
        };
        entry.answer = Some(answer.clone());
        answer
    }

    fn restore(&mut self, key: String) -> Told {
        let is_known = self.entries.contains_key(&key);
        let entry = self.entries.entry(key).or_default();
        let is_again = std::mem::replace(&mut entry.is_undone, true);
        match self.fault {
            Fault::RefusesEmpty if !is_known => Told::json(404, r#"{"message":"no such order"}"#),
            Fault::UndoesOnce if is_again => Told::json(422, ""),
            _ => Told::json(204, ""),
        }
    }
}

async fn shop(fault: Fault) -> Result<HttpService> {
    let shop = Mutex::new(Shop { fault, orders: 0, entries: HashMap::new() });
    HttpService::scripted(move |asked| shop.lock().answer(asked)).await
}

/// Exit code, standard output, standard error.
async fn check(words: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sagactl"));
    command.args(["participant", "check"]).args(words).env("NO_COLOR", "1").stdin(Stdio::null());
    let output = command.output().await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

/// The names of the checks that failed, and of those that were not tried.
async fn findings(endpoint: &str, words: &[&str]) -> Result<(Option<i32>, Vec<String>, Vec<String>)> {
    findings_of(endpoint, &["--input", r#"{"amount":2}"#], words).await
}

/// The same with an input of another form.
async fn findings_of(
    endpoint: &str,
    input: &[&str],
    words: &[&str],
) -> Result<(Option<i32>, Vec<String>, Vec<String>)> {
    let words = [&[endpoint, "--yes", "-o", "json"], input, words].concat();
    let (code, out, err) = check(&words).await?;
    let report: Value = serde_json::from_str(&out).with_context(|| format!("{out}\n{err}"))?;
    let checks = report["checks"].as_array().context("checks")?;
    let with = |verdict: &str| {
        let found = checks.iter().filter(|check| check["verdict"] == verdict);
        found.map(|check| check["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    Ok((code, with("FAILED"), with("NOT_TESTED")))
}

const HTTP: [&str; 10] = [
    "--protocol",
    "http",
    "--action",
    "deduct=POST /deduct",
    "--compensation",
    "restore=POST /restore",
    "--refused-input",
    r#"{"amount":0}"#,
    "--patience",
    "300ms",
];

#[tokio::test]
async fn a_good_service_passes_everything() -> Result<()> {
    let shop = shop(Fault::None).await?;
    let (code, failed, mut untested) = findings(&format!("http://{}", shop.address), &HTTP).await?;
    // Whether it is slow enough to be cut off is up to the machine.
    untested.retain(|name| name != "abandoned");
    assert_eq!((code, failed, untested), (Some(0), vec![], vec!["probed".to_owned()]));
    let keys = shop.asked().iter().all(|asked| asked.header("sagad-saga-id").starts_with("check-"));
    assert!(keys, "every run has a saga of its own");
    Ok(())
}

#[tokio::test]
async fn a_slow_service_is_cut_off_and_passes() -> Result<()> {
    let shop = Mutex::new(Shop { fault: Fault::None, orders: 0, entries: HashMap::new() });
    let slow = move |asked: &Asked| shop.lock().answer(asked).after(Duration::from_millis(40));
    let shop = HttpService::scripted(slow).await?;
    let (code, failed, untested) = findings(&format!("http://{}", shop.address), &HTTP).await?;
    assert_eq!((code, failed, untested), (Some(0), vec![], vec!["probed".to_owned()]));
    Ok(())
}

#[tokio::test]
async fn each_fault_is_found_and_nothing_else() -> Result<()> {
    let cases: [(Fault, &[&str]); 9] = [
        (Fault::NewAnswers, &["repeated", "at-once", "abandoned"]),
        (Fault::KnownIsAConflict, &["repeated", "at-once", "abandoned", "refused"]),
        (Fault::StaysInProgress, &["abandoned"]),
        (Fault::RefusesByError, &["refused"]),
        (Fault::RefusesNothing, &["refused"]),
        (Fault::EatsGarbage, &["garbage"]),
        (Fault::RefusesEmpty, &["undo-nothing"]),
        (Fault::UndoesOnce, &["undone-again"]),
        (Fault::TakesLate, &["late"]),
    ];
    for (fault, expected) in cases {
        let shop = shop(fault).await?;
        let (code, failed, _) = findings(&format!("http://{}", shop.address), &HTTP).await?;
        let failed: Vec<&str> = failed.iter().map(String::as_str).collect();
        assert_eq!((code, failed.as_slice()), (Some(1), expected), "{fault:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_status_that_the_registration_counts_is_counted_here_too() -> Result<()> {
    let shop = shop(Fault::RefusesEmpty).await?;
    let words = [&HTTP[..], &["--done-on", "restore=404"]].concat();
    let (code, failed, _) = findings(&format!("http://{}", shop.address), &words).await?;
    assert_eq!((code, failed.len()), (Some(0), 0), "{failed:?}");
    Ok(())
}

#[tokio::test]
async fn a_service_that_does_not_work_fails_at_the_first_check_and_the_rest_is_not_tried() -> Result<()> {
    let shop = shop(Fault::Down).await?;
    let (code, failed, untested) = findings(&format!("http://{}", shop.address), &HTTP).await?;
    assert_eq!((code, failed.as_slice(), untested.len()), (Some(1), &["works".to_owned()][..], 12));
    Ok(())
}

#[tokio::test]
async fn a_report_says_what_was_sent_what_came_back_why_and_what_to_do() -> Result<()> {
    let shop = shop(Fault::RefusesEmpty).await?;
    let endpoint = format!("http://{}", shop.address);
    let words = [&[endpoint.as_str(), "--yes", "--input", r#"{"amount":2}"#], &HTTP[..]].concat();
    let (code, out, err) = check(&words).await?;
    assert_eq!(code, Some(1), "{out}\n{err}");
    let expected = [
        "passed    the same key again gives the same answer\n",
        "FAILED    the compensation of an action that never arrived is done\n",
        "what  it was refused HTTP_404: no such order\n",
        "sent  compensation restore, key ",
        "got   refused HTTP_404: no such order\n",
        "why   after a timeout nobody knows",
        "do    answer as if it was undone",
        "untested  a probe finds the effect\n",
        "1 failed",
    ];
    for line in expected {
        assert!(out.contains(line), "{line:?} is not in\n{out}");
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_called_before_somebody_agrees() -> Result<()> {
    let shop = shop(Fault::None).await?;
    let endpoint = format!("http://{}", shop.address);
    let words = [&[endpoint.as_str(), "--input", "{}"], &HTTP[..]].concat();
    let (code, _, err) = check(&words).await?;
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("for real") && err.contains("--yes"), "{err}");
    for wrong in [&["--action", "deduct"][..], &["--input", "[]"], &["--done-on", "x=404"]] {
        let words = [&[endpoint.as_str(), "--yes", "--protocol", "http"], wrong].concat();
        assert_eq!(check(&words).await?.0, Some(2), "{wrong:?}");
    }
    assert!(shop.asked().is_empty());
    Ok(())
}

/// A participant with the barrier that checks what it is given.
fn careful(ledger: &Ledger, call: &Call) -> Answer {
    let input: Option<Value> = serde_json::from_str(&call.input).ok();
    let Some(input) = input else { return Answer::Refused("INVALID", "no JSON") };
    match call.action.as_str() {
        "deduct" if call.phase == "action" && input["amount"].is_null() => {
            Answer::Refused("INVALID", "no amount")
        }
        "deduct" | "restore" => ledger.answer(call, input["amount"] == 0),
        _ => Answer::Refused("UNKNOWN_ACTION", "there is no such action"),
    }
}

const SAGAD: [&str; 6] =
    ["--action", "deduct", "--compensation", "restore", "--refused-input", r#"{"amount":0}"#];

#[tokio::test]
async fn a_participant_with_the_barrier_passes_everything() -> Result<()> {
    let ledger = Arc::new(Ledger::default());
    let book = Arc::clone(&ledger);
    let shop = Participant::scripted(move |call| careful(&book, call)).await?;
    let (code, failed, mut untested) = findings(&format!("http://{}", shop.address), &SAGAD).await?;
    untested.retain(|name| name != "abandoned");
    assert_eq!((code, failed, untested), (Some(0), vec![], vec![]));
    assert!(ledger.entries().iter().all(|entry| entry.effects == entry.undos), "everything is undone");
    Ok(())
}

#[tokio::test]
async fn a_participant_that_answers_by_statuses_is_found_out() -> Result<()> {
    let ledger = Ledger::default();
    let shop = Participant::scripted(move |call| match careful(&ledger, call) {
        Answer::Refused(..) | Answer::Superseded => Answer::Status(Code::FailedPrecondition),
        answer => answer,
    })
    .await?;
    let words = [&SAGAD[..], &["--patience", "300ms"]].concat();
    let (code, failed, _) = findings(&format!("http://{}", shop.address), &words).await?;
    assert_eq!(code, Some(1));
    assert_eq!(failed, ["late", "refused"]);
    Ok(())
}

#[tokio::test]
async fn a_participant_that_keeps_no_keys_is_found_out() -> Result<()> {
    let count = Mutex::new(0);
    let shop = Participant::scripted(move |_| {
        *count.lock() += 1;
        Answer::with(&format!("{{\"n\":{}}}", count.lock()))
    })
    .await?;
    let (code, failed, _) = findings(&format!("http://{}", shop.address), &SAGAD).await?;
    assert_eq!(code, Some(1));
    for name in ["repeated", "at-once", "late", "refused", "garbage"] {
        assert!(failed.contains(&name.to_owned()), "{name} in {failed:?}");
    }
    Ok(())
}

/// The gRPC service of another team.
const GREENHOUSE: [(&str, &str); 1] = [(
    "greenhouse.proto",
    r#"
syntax = "proto3";
package greenhouse.v3;
service Plants {
  rpc Take(TakeRequest) returns (TakeReply);
  rpc GiveBack(TakeRequest) returns (TakeReply);
}
message TakeRequest { uint32 pots = 1; }
message TakeReply { int64 receipt = 1; }
"#,
)];

/// What a plain gRPC service with the barrier keeps: answers by the action's key, and what was undone.
#[derive(Default)]
struct Greenhouse {
    receipts: HashMap<String, u64>,
    undone: HashSet<String>,
}

impl Greenhouse {
    fn answer(&mut self, seen: &Seen, undoes_nothing: bool) -> Says {
        let key = seen.metadata["sagad-action-idempotency-key"].clone();
        let next = self.receipts.len() as u64 + 1;
        if seen.method == "GiveBack" {
            let is_known = self.receipts.contains_key(&key) || self.undone.contains(&key);
            if !is_known && !undoes_nothing {
                return Says::Status(Status::not_found("no such receipt"));
            }
            self.undone.insert(key);
            return Says::Json(json!({}));
        }
        if let Some(receipt) = self.receipts.get(&key) {
            return Says::Json(json!({ "receipt": receipt.to_string() }));
        }
        if self.undone.contains(&key) {
            return Says::Status(Status::failed_precondition("given back before it was taken"));
        }
        if seen.request["pots"].as_u64().unwrap_or_default() == 0 {
            return Says::Status(Status::invalid_argument("no pots"));
        }
        self.receipts.insert(key, next);
        Says::Json(json!({ "receipt": next.to_string() }))
    }
}

#[tokio::test]
async fn a_plain_grpc_service_is_tried_out_by_its_own_types() -> Result<()> {
    let cases: [(bool, &[&str], &[&str]); 3] = [
        (true, &[], &[]),
        (false, &[], &["undo-nothing", "late", "undo-refused"]),
        // A status that counts as done leaves the late action to be found.
        (false, &["--done-on", "give-back=NOT_FOUND"], &["late"]),
    ];
    for (undoes_nothing, words, expected) in cases {
        let greenhouse = Mutex::new(Greenhouse::default());
        let script = move |seen: &Seen| greenhouse.lock().answer(seen, undoes_nothing);
        let sample = Sample::start(&compile(&GREENHOUSE), Reflects::V1, script).await;
        let words = [
            &["--protocol", "grpc", "--action", "take=greenhouse.v3.Plants/Take"][..],
            &["--compensation", "give-back=greenhouse.v3.Plants/GiveBack", "--patience", "300ms"],
            &["--refused-input", r#"{"pots":0}"#],
            words,
        ];
        let input = ["--input", r#"{"pots":2}"#];
        let (_, failed, _) = findings_of(&sample.endpoint(), &input, &words.concat()).await?;
        let failed: Vec<&str> = failed.iter().map(String::as_str).collect();
        assert_eq!(failed, expected);
    }
    Ok(())
}
