//! What a text is laid out for: how wide, and as of when.

use std::io::IsTerminal as _;

use crate::clock::{Clock as _, SystemClock};
use crate::saga::ids::Timestamp;

/// Narrowest terminal that tables are fitted to; below it they run over.
const WIDTH_MIN_COLUMNS: u16 = 40;

/// The page that a text is laid out for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Columns of the terminal; `None` where the output is a file or a pipe, which has no width.
    pub width: Option<u16>,
    /// The time that ages are counted to.
    pub now: Timestamp,
}

impl Page {
    /// The page in front of the reader: the standard output, now.
    #[must_use]
    pub fn here() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let columns = if terminal { comfy_table::Table::new().width() } else { None };
        // Some terminals say 0 when they do not know.
        let width = columns.filter(|&columns| columns > 0);
        Self { width: width.map(|columns| columns.max(WIDTH_MIN_COLUMNS)), now: SystemClock::start().now() }
    }
}
