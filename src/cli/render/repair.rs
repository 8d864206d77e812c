//! What an operator's act leads to.

use std::fmt::Write as _;

use super::page::Page;
use super::table::{Cell, lay_out};
use super::{saga, text};
use crate::proto::RepairResponse;

/// The calls that would follow, shown before anything is done.
#[must_use]
pub fn plan(answer: &RepairResponse, page: &Page) -> String {
    told(answer, page, "would then stand as")
}

/// What followed.
#[must_use]
pub fn outcome(answer: &RepairResponse, page: &Page) -> String {
    told(answer, page, "now")
}

fn told(answer: &RepairResponse, page: &Page, when: &str) -> String {
    let mut told = if answer.plan.is_empty() {
        "no call follows\n".to_owned()
    } else {
        let rows = answer.plan.iter().map(|call| {
            vec![
                Cell::of(&call.step),
                Cell::of(&call.phase),
                Cell::of(format!("{}.{}", call.participant, call.action)),
                Cell::of(&call.note),
            ]
        });
        let calls = u64::try_from(answer.plan.len()).unwrap_or(u64::MAX);
        let follow = if calls == 1 { "follows" } else { "follow" };
        let table = lay_out(page, &["STEP", "PHASE", "CALL", "NOTE"], rows.collect());
        format!("{} {follow}\n{table}", text::counted(calls, "call"))
    };
    if let Some(saga) = &answer.saga {
        let _ = write!(told, "{when}: {}", saga::line(saga));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::{drawn, narrow_page, sample};

    #[test]
    fn a_plan_lists_the_calls_and_how_the_saga_would_stand() {
        insta::assert_snapshot!(drawn(&plan(&sample::repair_plan(), &narrow_page())));
    }

    #[test]
    fn an_act_without_calls_says_so() {
        let answer = RepairResponse { plan: Vec::new(), saga: Some(sample::compensated_saga()) };
        assert!(outcome(&answer, &narrow_page()).starts_with("no call follows\n"));
    }
}
