//! What is wrong with a definition file, for people and for tools.

use std::fmt;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

use super::located::Place;

/// One thing wrong with a definition file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's name, where it was given.
    pub file: Option<String>,
    /// The line, counted from 1.
    pub line: usize,
    /// The column, counted from 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead, where that is known.
    pub help: Option<String>,
}

/// One line: `order.yaml:12:5: there is no step "x"; did you mean "y"?`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
        }
        write!(f, "{}:{}: {}", self.line, self.column, self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// Draws problems with the lines of the source they point at, without colours.
#[must_use]
pub fn render(problems: &[Problem], source: &str, file: &str) -> String {
    const WIDTH_COLUMNS: usize = 100;
    let drawer =
        GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(WIDTH_COLUMNS);
    let mut drawing = String::new();
    for problem in problems {
        let drawn =
            Drawn { problem, at: offset(source, problem), source: NamedSource::new(file, source.to_owned()) };
        if drawer.render_report(&mut drawing, &drawn).is_err() {
            drawing.push_str(&problem.to_string());
        }
        drawing.push('\n');
    }
    drawing
}

/// The byte a problem points at.
fn offset(source: &str, problem: &Problem) -> usize {
    let mut lines = source.split_inclusive('\n');
    let before: usize = lines.by_ref().take(problem.line - 1).map(str::len).sum();
    let line = lines.next().unwrap_or("");
    let inside = line.char_indices().nth(problem.column - 1).map_or(line.trim_end().len(), |(at, _)| at);
    (before + inside).min(source.len())
}

struct Drawn<'a> {
    problem: &'a Problem,
    at: usize,
    source: NamedSource<String>,
}

impl fmt::Debug for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.problem)
    }
}

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Drawn<'_> {}

impl Diagnostic for Drawn<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let word = self.source.inner()[self.at..]
            .chars()
            .take_while(|c| !c.is_whitespace() && !",]}".contains(*c))
            .map(char::len_utf8)
            .sum::<usize>();
        Some(Box::new(std::iter::once(LabeledSpan::new(Some("here".to_owned()), self.at, word.max(1)))))
    }
}

/// Problems and warnings as they are found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<(Place, Problem)>,
    pub(super) warnings: Vec<String>,
    file: Option<String>,
}

impl Findings {
    pub(super) fn of(file: Option<&str>) -> Self {
        Self { file: file.map(str::to_owned), ..Self::default() }
    }

    /// Notes a problem.
    pub(super) fn problem(&mut self, place: Place, message: impl Into<String>) {
        self.note(place, message.into(), None);
    }

    /// Notes a problem with what to write instead.
    pub(super) fn problem_with_help(
        &mut self,
        place: Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.note(place, message.into(), Some(help.into()));
    }

    pub(super) fn note(&mut self, place: Place, message: String, help: Option<String>) {
        let problem =
            Problem { file: self.file.clone(), line: place.line, column: place.column, message, help };
        self.problems.push((place, problem));
    }

    /// Notes what is allowed and probably not meant.
    pub(super) fn warning(&mut self, place: Place, message: &str) {
        let file = self.file.as_deref().map(|file| format!("{file}:")).unwrap_or_default();
        self.warnings.push(format!("{file}{}:{}: {message}", place.line, place.column));
    }

    pub(super) fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// The problems in file order.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|(place, _)| *place);
        self.problems.into_iter().map(|(_, problem)| problem).collect()
    }
}
