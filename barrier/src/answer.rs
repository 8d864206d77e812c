//! What the participant's own code says, and what the daemon is told.

/// What came of an effect or an undo: the participant's own code returns it, the barrier stores it.
///
/// A timeout or any other doubt is not an answer: return an error, and the call will come again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It happened. The output as JSON in UTF-8; empty is null.
    Done(String),
    /// It did not happen and will not: a definite no. What the code wrote in the transaction before it
    /// said so is rolled back.
    Refused {
        /// A short word for programs, such as `OUT_OF_STOCK`.
        code: String,
        /// What is wrong, for people.
        message: String,
    },
}

impl Answer {
    /// It happened, and this is the output as JSON; empty is null.
    pub fn done(output_json: impl Into<String>) -> Self {
        Self::Done(output_json.into())
    }

    /// It did not happen and will not.
    pub fn refused(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Refused { code: code.into(), message: message.into() }
    }
}

/// What to answer the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the daemon waits for this answer"]
pub enum Reply {
    /// `done` with this output.
    Done(String),
    /// `refused` with this code and message.
    Refused {
        /// A short word for programs.
        code: String,
        /// What is wrong, for people.
        message: String,
    },
    /// `superseded` (only to Execute): the compensation or a probe was here first.
    Superseded,
    /// The same call, or the one it depends on, is at work at this moment. Answer the status ABORTED (over
    /// HTTP 409), which is an unknown outcome, and `pending` to a probe: it is asked again.
    InProgress,
    /// Whether an earlier call had its effect cannot be told yet. Answer the status ABORTED (over HTTP
    /// 409), also to a probe.
    Unsettled,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Done(output) => Self::Done(output),
            Answer::Refused { code, message } => Self::Refused { code, message },
        }
    }
}

/// What a look at the outside world found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// The effect is there; its output as JSON, as the action would have answered.
    There(String),
    /// The effect is not there, and no call that is still under way will bring it about. For an undo: it
    /// is gone.
    NotThere,
    /// It cannot be told now: the call stays unknown and is made again.
    CannotTell,
}

/// What a purge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purged {
    /// Rows deleted.
    pub deleted: u64,
    /// Rows as old that were kept: an effect outside the database was begun and nobody ever learnt what
    /// came of it. Their sagas have ended, so a person has to look.
    pub unfinished: u64,
}
