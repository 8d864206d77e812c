//! Tables without lines, fitted to the terminal.

use comfy_table::{Attribute, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, presets};

use super::page::Page;
use super::text::{self, Tone};

/// Blanks behind every column.
const GAP_COLUMNS: u16 = 2;
/// Least width of a column that is wrapped for want of room.
const WRAPPED_MIN_COLUMNS: u16 = 9;

/// One cell.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    tone: Tone,
    number: bool,
}

impl Cell {
    /// Text of our own making or from outside; it is made safe to print.
    #[must_use]
    pub fn of(text: impl AsRef<str>) -> Self {
        Self::toned(text, Tone::Plain)
    }

    /// Text with a meaning.
    #[must_use]
    pub fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: text::or_none(text.as_ref()), tone, number: false }
    }

    /// A number, set to the right.
    #[must_use]
    pub fn number(value: impl Into<u64>) -> Self {
        Self { text: value.into().to_string(), tone: Tone::Plain, number: true }
    }

    fn has_value(&self) -> bool {
        self.text != text::NONE
    }
}

/// Lays out rows under their heads. A column without a single value is left out: it would only take
/// room from the others.
#[must_use]
pub fn lay_out(page: &Page, heads: &[&str], rows: Vec<Vec<Cell>>) -> String {
    let told = |column: usize| rows.iter().any(|row| row.get(column).is_some_and(Cell::has_value));
    let shown: Vec<bool> = (0..heads.len()).map(told).collect();
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).enforce_styling().style_text_only();
    match page.width {
        Some(columns) => {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    let heads = heads.iter().zip(&shown).filter_map(|(head, &shown)| shown.then_some(head));
    table.set_header(heads.map(|head| comfy_table::Cell::new(head).add_attribute(Attribute::Bold)));
    for row in rows {
        let cells = row.into_iter().zip(&shown).filter_map(|(cell, &shown)| shown.then_some(cell));
        table.add_row(cells.map(drawn));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP_COLUMNS));
    }
    if let Some(columns) = page.width {
        keep_whole(&mut table, columns);
    }
    let mut laid = String::new();
    for line in table.lines() {
        laid.push_str(line.trim_end());
        laid.push('\n');
    }
    laid
}

/// Saves as many columns as possible from being wrapped, the narrow ones first: names and words
/// are what people copy, prose can be wrapped.
fn keep_whole(table: &mut Table, columns: u16) {
    let widths = table.column_max_content_widths();
    let mut narrow_first: Vec<usize> = (0..widths.len()).collect();
    narrow_first.sort_by_key(|&at| widths[at]);
    let mut wrapped = u16::try_from(widths.len()).unwrap_or(u16::MAX);
    let mut left = columns.saturating_sub(GAP_COLUMNS.saturating_mul(wrapped));
    for at in narrow_first {
        wrapped -= 1;
        left = left.saturating_sub(widths[at]);
        if left < wrapped.saturating_mul(WRAPPED_MIN_COLUMNS) || left == 0 {
            return;
        }
        if let Some(column) = table.column_mut(at) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

fn drawn(cell: Cell) -> comfy_table::Cell {
    let mut drawn = comfy_table::Cell::new(cell.text);
    if cell.number {
        drawn = drawn.set_alignment(CellAlignment::Right);
    }
    match cell.tone {
        Tone::Plain => drawn,
        Tone::Good => drawn.fg(Color::DarkGreen),
        Tone::Bad => drawn.fg(Color::DarkRed),
        Tone::Wary => drawn.fg(Color::DarkYellow),
        Tone::Faint => drawn.add_attribute(Attribute::Dim),
        Tone::Strong => drawn.add_attribute(Attribute::Bold),
    }
}
