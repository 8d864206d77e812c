//! The findings of a conformance run, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::text::{self, Tone, paint};
use crate::participant::check::{Finding, Plan, Verdict};

/// The whole run, for programs.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    passed: usize,
    failed: usize,
    not_tested: usize,
    checks: Vec<FindingView<'a>>,
}

/// One finding, for programs.
#[derive(Debug, Serialize)]
pub struct FindingView<'a> {
    name: &'a str,
    rule: &'a str,
    verdict: &'static str,
    problem: &'a str,
    why: &'a str,
    remedy: &'a str,
    exchanges: Vec<ExchangeView<'a>>,
}

#[derive(Debug, Serialize)]
struct ExchangeView<'a> {
    sent: &'a str,
    got: &'a str,
}

fn count(findings: &[Finding], verdict: Verdict) -> usize {
    findings.iter().filter(|finding| finding.verdict == verdict).count()
}

/// The whole run, for programs.
#[must_use]
pub fn report(findings: &[Finding]) -> Report<'_> {
    Report {
        passed: count(findings, Verdict::Passed),
        failed: count(findings, Verdict::Failed),
        not_tested: count(findings, Verdict::NotTested),
        checks: findings.iter().map(view).collect(),
    }
}

/// One finding, for programs.
#[must_use]
pub fn view(finding: &Finding) -> FindingView<'_> {
    let exchanges = finding.exchanges.iter();
    FindingView {
        name: finding.name,
        rule: finding.rule,
        verdict: match finding.verdict {
            Verdict::Passed => "PASSED",
            Verdict::Failed => "FAILED",
            Verdict::NotTested => "NOT_TESTED",
        },
        problem: &finding.problem,
        why: finding.why,
        remedy: &finding.remedy,
        exchanges: exchanges
            .map(|exchange| ExchangeView { sent: &exchange.sent, got: &exchange.got })
            .collect(),
    }
}

/// One finding, for people: a line, and what a developer needs where it is bad.
#[must_use]
pub fn finding(finding: &Finding) -> String {
    let (word, tone) = match finding.verdict {
        Verdict::Passed => ("passed", Tone::Good),
        Verdict::Failed => ("FAILED", Tone::Bad),
        Verdict::NotTested => ("untested", Tone::Wary),
    };
    let mut told = format!("{}{:pad$}{}\n", paint(word, tone), "", finding.rule, pad = 10 - word.len());
    match finding.verdict {
        Verdict::Passed => {}
        Verdict::NotTested => {
            let _ = writeln!(told, "          {}", text::printable(&finding.problem));
        }
        Verdict::Failed => {
            let mut line = |name: &str, what: &str| {
                let _ = writeln!(told, "          {name:<5} {}", text::printable(what));
            };
            line("what", &finding.problem);
            for exchange in &finding.exchanges {
                line("sent", &exchange.sent);
                line("got", &exchange.got);
            }
            line("why", finding.why);
            line("do", &finding.remedy);
        }
    }
    told
}

/// The last line.
#[must_use]
pub fn summary(findings: &[Finding]) -> String {
    let failed = count(findings, Verdict::Failed);
    let tone = if failed == 0 { Tone::Good } else { Tone::Bad };
    let failed = paint(&format!("{failed} failed"), tone);
    let (passed, untested) = (count(findings, Verdict::Passed), count(findings, Verdict::NotTested));
    format!("\n{passed} passed, {failed}, {untested} not tested\n")
}

/// What is to be agreed to before the run.
#[must_use]
pub fn warning(plan: &Plan) -> String {
    let undone = match &plan.compensation {
        Some(compensation) => format!("undone by {compensation}, as far as it works"),
        None => "not undone, since there is no --compensation".to_owned(),
    };
    format!(
        "this calls {} at {} some twenty times for real; what it does is {undone}\n",
        plan.action, plan.handlers.endpoint
    )
}
