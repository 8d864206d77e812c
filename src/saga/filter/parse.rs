//! The grammar: `or := and (OR and)*`, `and := not (AND not)*`, `not := NOT not | ( or ) | test`.

use super::lex::{Lexer, Word};
use super::times::{parse_span, parse_time};
use super::{
    Comparison, FILTER_DEPTH_MAX, FILTER_MAX_BYTES, FilterError, FlagField, Node, SpanField, Test, TextField,
    TextOp, TimeField,
};
use crate::saga::words::SagaStatus;

const FIELDS: &str = "status, definition, version, saga_id, age, idle, created, updated, step, participant, \
                      error, blocked, paused, uncertain, label.NAME";

pub(super) fn parse(text: &str) -> Result<Option<Node>, FilterError> {
    if text.len() > FILTER_MAX_BYTES {
        return Err(FilterError {
            position: 1,
            message: format!("the filter has {} bytes; at most {FILTER_MAX_BYTES} are allowed", text.len()),
        });
    }
    let mut lexer = Lexer::new(text);
    if lexer.is_at_end() {
        return Ok(None);
    }
    let node = any_of(&mut lexer, 0)?;
    if lexer.is_at_end() {
        return Ok(Some(node));
    }
    let here = lexer.here();
    Err(lexer.unexpected(here, "AND or OR"))
}

fn any_of(lexer: &mut Lexer, depth: usize) -> Result<Node, FilterError> {
    let mut parts = vec![all_of(lexer, depth)?];
    while lexer.take_keyword("OR") {
        parts.push(all_of(lexer, depth)?);
    }
    Ok(one_or(parts, Node::Or))
}

fn all_of(lexer: &mut Lexer, depth: usize) -> Result<Node, FilterError> {
    let mut parts = vec![negation(lexer, depth)?];
    while lexer.take_keyword("AND") {
        parts.push(negation(lexer, depth)?);
    }
    Ok(one_or(parts, Node::And))
}

fn one_or(mut parts: Vec<Node>, many: fn(Vec<Node>) -> Node) -> Node {
    if parts.len() == 1 { parts.remove(0) } else { many(parts) }
}

fn negation(lexer: &mut Lexer, depth: usize) -> Result<Node, FilterError> {
    let here = lexer.here();
    if depth > FILTER_DEPTH_MAX {
        return Err(lexer.error(here, format!("nested deeper than {FILTER_DEPTH_MAX}")));
    }
    if lexer.take_keyword("NOT") {
        return Ok(Node::Not(Box::new(negation(lexer, depth + 1)?)));
    }
    if lexer.take('(') {
        let inner = any_of(lexer, depth + 1)?;
        if lexer.take(')') {
            return Ok(inner);
        }
        let here = lexer.here();
        return Err(lexer.unexpected(here, "AND, OR or `)`"));
    }
    test(lexer).map(Node::Test)
}

fn test(lexer: &mut Lexer) -> Result<Test, FilterError> {
    let field = lexer.field()?;
    let kind = kind_of(&field.text).ok_or_else(|| match field.text.as_str() {
        "AND" | "OR" | "NOT" | "and" | "or" | "not" => lexer.unexpected(field.at, "a condition"),
        "label." => lexer.error(field.at, "`label.` needs the name of a label"),
        other => lexer.error(field.at, format!("there is no field `{other}`; the fields are {FIELDS}")),
    })?;
    let (operator, at) = lexer.operator()?;
    let value = lexer.value()?;
    let wrong = |expected: &str| {
        lexer.error(value.at, format!("`{}` takes {expected}, not `{}`", field.text, value.text))
    };
    let no_such_operator = || lexer.error(at, format!("`{operator}` cannot be used with `{}`", field.text));
    Ok(match kind {
        Kind::Status => Test::Status {
            equal: equality(operator).ok_or_else(no_such_operator)?,
            value: status(&value.text).ok_or_else(|| wrong(&statuses()))?,
        },
        Kind::Version => Test::Version {
            op: comparison(operator).ok_or_else(no_such_operator)?,
            value: whole_number(&value).ok_or_else(|| wrong("a whole number"))?,
        },
        Kind::Text(text) => Test::Text {
            field: text,
            op: text_op(operator).ok_or_else(no_such_operator)?,
            value: value.text.clone(),
        },
        Kind::Span(span) => Test::Span {
            field: span,
            op: comparison(operator).ok_or_else(no_such_operator)?,
            value: parse_span(&value.text)
                .ok_or_else(|| wrong("a span of time such as 90s, 10m or 1h30m"))?,
        },
        Kind::Time(time) => Test::Time {
            field: time,
            op: comparison(operator).ok_or_else(no_such_operator)?,
            value: parse_time(&value.text).ok_or_else(|| wrong("a time such as 2030-01-31T12:00:00Z"))?,
        },
        Kind::Flag(flag) => Test::Flag {
            field: flag,
            equal: equality(operator).ok_or_else(no_such_operator)?,
            value: match value.text.as_str() {
                "true" => true,
                "false" => false,
                _ => return Err(wrong("true or false")),
            },
        },
    })
}

enum Kind {
    Status,
    Version,
    Text(TextField),
    Span(SpanField),
    Time(TimeField),
    Flag(FlagField),
}

fn kind_of(field: &str) -> Option<Kind> {
    Some(match field {
        "status" => Kind::Status,
        "version" => Kind::Version,
        "definition" => Kind::Text(TextField::Definition),
        "saga_id" => Kind::Text(TextField::SagaId),
        "step" => Kind::Text(TextField::Step),
        "participant" => Kind::Text(TextField::Participant),
        "error" => Kind::Text(TextField::Error),
        "age" => Kind::Span(SpanField::Age),
        "idle" => Kind::Span(SpanField::Idle),
        "created" => Kind::Time(TimeField::Created),
        "updated" => Kind::Time(TimeField::Updated),
        "blocked" => Kind::Flag(FlagField::Blocked),
        "paused" => Kind::Flag(FlagField::Paused),
        "uncertain" => Kind::Flag(FlagField::Uncertain),
        other => match other.strip_prefix("label.") {
            Some(name) if !name.is_empty() => Kind::Text(TextField::Label(name.to_owned())),
            Some(_) | None => return None,
        },
    })
}

fn status(word: &str) -> Option<SagaStatus> {
    SagaStatus::ALL.into_iter().find(|status| status.as_str() == word)
}

fn statuses() -> String {
    format!("one of {}", SagaStatus::ALL.map(SagaStatus::as_str).join(", "))
}

fn whole_number(value: &Word) -> Option<u32> {
    let digits = value.text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { value.text.parse().ok() } else { None }
}

fn equality(operator: &str) -> Option<bool> {
    match operator {
        "=" => Some(true),
        "!=" => Some(false),
        _ => None,
    }
}

fn text_op(operator: &str) -> Option<TextOp> {
    match operator {
        "=" => Some(TextOp::Equal),
        "!=" => Some(TextOp::Unequal),
        ":" => Some(TextOp::Contains),
        _ => None,
    }
}

fn comparison(operator: &str) -> Option<Comparison> {
    match operator {
        "=" => Some(Comparison::Equal),
        "!=" => Some(Comparison::Unequal),
        "<" => Some(Comparison::Less),
        "<=" => Some(Comparison::AtMost),
        ">" => Some(Comparison::More),
        ">=" => Some(Comparison::AtLeast),
        _ => None,
    }
}
