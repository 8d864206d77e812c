//! Where an action leads: the method, and what its statuses mean.

use std::sync::Arc;

use super::answers::Answers;
use super::given::DescriptorSet;
use super::types::{self, MethodName};
use crate::participant::handlers::{ClaimedAction, FieldProblem};

/// An action's target and answers, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::participant) struct Route {
    pub(super) method: MethodName,
    pub(super) answers: Answers,
    /// Where its types are given; otherwise the service is asked for them.
    pub(super) given: Option<Arc<DescriptorSet>>,
}

impl Route {
    /// Reads what a claim says of an action.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub(in crate::participant) fn read(
        action: &ClaimedAction,
        given: Option<&Arc<DescriptorSet>>,
    ) -> Result<Self, Vec<FieldProblem>> {
        let mut problems = Vec::new();
        let method = MethodName::parse(&action.target).and_then(|method| match given {
            Some(set) => types::unary(&set.pool, &method).map(|_| method),
            None => Ok(method),
        });
        let method = method.map_err(|problem| problems.push(FieldProblem::new("target", problem)));
        let answers = Answers::read(action, &mut problems);
        match method {
            Ok(method) if problems.is_empty() => Ok(Self { method, answers, given: given.cloned() }),
            _ => Err(problems),
        }
    }
}
