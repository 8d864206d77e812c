//! What operators and participants ask of a saga: cancel, complete, repair, explain.

use super::Engine;
use super::batch::{context, refusal_of, unknown_token};
use super::error::{EngineError, Violation};
use super::mail::Ask;
use super::request::{RepairAnswer, RepairRequest, SagaView, StuckItem};
use super::settings::RECOVERY_WAIT_MAX;
use super::stuck::abandoning;
use crate::saga::decide::decide;
use crate::saga::ids::SagaId;
use crate::saga::input::{Completion, Input};
use crate::saga::keys::parse_token;
use crate::saga::view::{self, Explanation};

impl Engine {
    /// Asks the saga to undo itself; answered once the wish is durable.
    ///
    /// # Errors
    /// `NotFound`; `Precondition` when it only goes forward or has ended otherwise; `Unavailable`.
    pub async fn cancel(&self, id: &SagaId, actor: String, reason: String) -> Result<SagaView, EngineError> {
        self.shared.check_taking()?;
        let accepted = self.ask(id, Ask::Cancel { actor, reason }).await?;
        Ok(self.view(accepted.saga))
    }

    /// Finishes a step that answered pending, by its token. The same outcome again is fine.
    ///
    /// # Errors
    /// `NotFound` for a token this store did not make; `Precondition` when the step was settled
    /// otherwise; `Unavailable`.
    pub async fn complete(&self, token: &str, outcome: Completion) -> Result<(), EngineError> {
        self.shared.check_taking()?;
        let (id, step, phase) = parse_token(&self.shared.token_secret, token).ok_or_else(unknown_token)?;
        match self.ask(&id, Ask::Complete { step, phase, outcome }).await {
            Ok(_) => Ok(()),
            Err(EngineError::NotFound { .. }) => Err(unknown_token()),
            Err(error) => Err(error),
        }
    }

    /// Carries out an operator's act, or shows what it would lead to.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a missing reason or an unknown step; `Precondition`;
    /// `Unavailable`.
    pub async fn repair(&self, request: RepairRequest) -> Result<RepairAnswer, EngineError> {
        self.shared.check_taking()?;
        if request.dry_run {
            return self.rehearse(request).await;
        }
        if request.reason.trim().is_empty() {
            let violation = Violation::new("reason", "must say why; it is kept in the history");
            return Err(EngineError::Invalid(vec![violation]));
        }
        let RepairRequest { id, act, actor, reason, .. } = request;
        let accepted = self.ask(&id, Ask::Act { act, actor, reason }).await?;
        Ok(RepairAnswer { plan: view::plan(&accepted.saga), saga: self.view(accepted.saga) })
    }

    /// What an act would lead to, decided on a copy that nobody keeps.
    async fn rehearse(&self, request: RepairRequest) -> Result<RepairAnswer, EngineError> {
        let saga = self.saga(&request.id).await?;
        let reason = if request.reason.is_empty() { "dry run".to_owned() } else { request.reason };
        let input = Input::Act { act: request.act, actor: request.actor, reason };
        let decision =
            decide(&saga, &input, &context(&self.shared, self.shared.clock.now())).map_err(refusal_of)?;
        if let Some(rejection) = decision.refused {
            return Err(refusal_of(rejection));
        }
        Ok(RepairAnswer { plan: view::plan(&decision.next), saga: self.view(decision.next.into()) })
    }

    /// Why the saga stands where it stands, what comes next, and what an operator would type.
    ///
    /// # Errors
    /// As [`Engine::get`].
    pub async fn explain(&self, id: &SagaId) -> Result<(Explanation, SagaView), EngineError> {
        let saga = self.get(id).await?;
        let shared = &self.shared;
        let mut explanation = view::explain(&saga.saga, shared.dispatch.as_ref(), shared.journal_limit);
        if let Some(reason) = shared.stuck.why_outgrown(id) {
            explanation.lines.push(reason);
            explanation.next.clear();
            explanation.suggested_command = Some(abandoning(id));
        }
        Ok((explanation, saga))
    }

    /// What waits for an operator, longest wait first, quarantined sagas among it; the next page's
    /// token and the exact total. While a long recovery is under way, what it has seen so far.
    ///
    /// # Errors
    /// `Invalid` for a token of another list.
    pub async fn list_stuck(
        &self,
        page_size: usize,
        page_token: &str,
    ) -> Result<(Vec<StuckItem>, String, u64), EngineError> {
        self.until_recovered().await;
        self.shared.stuck.page(page_size, page_token)
    }

    /// Waits until recovery has looked at every open saga that does not rest, but not for ever: what
    /// is blocked is known only then.
    pub(super) async fn until_recovered(&self) {
        let mut recovered = self.shared.recovered.subscribe();
        let _known = tokio::time::timeout(RECOVERY_WAIT_MAX, recovered.wait_for(|done| *done)).await;
    }
}
