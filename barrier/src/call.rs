//! The calls as they come from the daemon. Three types, so that none can be taken for another.

/// The longest key, in ASCII characters.
const KEY_CHARS_MAX: usize = 64;
/// The longest saga id, in characters.
const SAGA_ID_CHARS_MAX: usize = 200;
/// The longest step name with its instance, in characters.
const STEP_CHARS_MAX: usize = 200;

/// An action's call (`Execute`).
#[derive(Debug, Clone, Copy)]
pub struct Action<'a> {
    /// The saga's id.
    pub saga_id: &'a str,
    /// The step, with `/` and the item's index for an instance.
    pub step: &'a str,
    /// The call's `idempotency_key`.
    pub key: &'a str,
}

/// A compensation's call (`Compensate`).
#[derive(Debug, Clone, Copy)]
pub struct Compensation<'a> {
    /// The saga's id.
    pub saga_id: &'a str,
    /// The step, with `/` and the item's index for an instance.
    pub step: &'a str,
    /// The call's own `idempotency_key`.
    pub key: &'a str,
    /// The `action_idempotency_key`: which action to undo.
    pub action_key: &'a str,
}

/// A probe's call (`Probe`).
#[derive(Debug, Clone, Copy)]
pub struct Probe<'a> {
    /// The saga's id.
    pub saga_id: &'a str,
    /// The step, with `/` and the item's index for an instance.
    pub step: &'a str,
    /// The `action_idempotency_key`: which action is asked about.
    pub action_key: &'a str,
}

/// A call whose fields cannot be what the daemon sent. Nothing was read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}; take it from the request unchanged")]
pub struct InvalidCall {
    /// The field.
    pub field: &'static str,
    /// The rule that it breaks.
    pub rule: &'static str,
}

impl Action<'_> {
    pub(crate) fn check(&self) -> Result<(), InvalidCall> {
        names(self.saga_id, self.step)?;
        key("key", self.key)
    }
}

impl Compensation<'_> {
    pub(crate) fn check(&self) -> Result<(), InvalidCall> {
        names(self.saga_id, self.step)?;
        key("key", self.key)?;
        key("action_key", self.action_key)?;
        if self.key == self.action_key {
            // The daemon never sends this: one of them was filled in from the wrong field.
            return Err(InvalidCall { field: "key", rule: "a compensation's key is not its action's" });
        }
        Ok(())
    }
}

impl Probe<'_> {
    pub(crate) fn check(&self) -> Result<(), InvalidCall> {
        names(self.saga_id, self.step)?;
        key("action_key", self.action_key)
    }
}

fn names(saga_id: &str, step: &str) -> Result<(), InvalidCall> {
    if saga_id.is_empty() || saga_id.chars().count() > SAGA_ID_CHARS_MAX {
        return Err(InvalidCall { field: "saga_id", rule: "has 1 to 200 characters" });
    }
    if step.is_empty() || step.chars().count() > STEP_CHARS_MAX {
        return Err(InvalidCall { field: "step", rule: "has 1 to 200 characters" });
    }
    Ok(())
}

fn key(field: &'static str, key: &str) -> Result<(), InvalidCall> {
    if key.is_empty() || key.len() > KEY_CHARS_MAX || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(InvalidCall { field, rule: "has 1 to 64 printable ASCII characters" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compensation_that_carries_one_key_twice_is_turned_away() {
        let call = Compensation { saga_id: "order-1", step: "deduct-stock", key: "a", action_key: "a" };
        assert_eq!(call.check().unwrap_err().field, "key");
    }

    #[test]
    fn a_key_is_what_the_daemon_makes() {
        let long = "k".repeat(65);
        for (bad, why) in [("", "empty"), (long.as_str(), "long"), ("a b", "blank"), ("열쇠", "not ASCII")]
        {
            let call = Action { saga_id: "order-1", step: "deduct-stock", key: bad };
            assert_eq!(call.check().unwrap_err().field, "key", "{why}");
        }
        let call = Action { saga_id: "order-1", step: "deduct-stock/0", key: &long[..64] };
        assert_eq!(call.check(), Ok(()));
    }

    #[test]
    fn a_call_names_its_saga_and_step() {
        let probe = Probe { saga_id: "", step: "deduct-stock", action_key: "a" };
        assert_eq!(probe.check().unwrap_err().field, "saga_id");
        let probe = Probe { saga_id: "order-1", step: "", action_key: "a" };
        assert_eq!(probe.check().unwrap_err().field, "step");
    }
}
