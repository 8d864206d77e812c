//! A filter as text again, in one spelling.

use std::fmt;

use super::times::{write_span, write_time};
use super::{Comparison, Filter, FlagField, Node, SpanField, Test, TextField, TextOp, TimeField};

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(node) => write!(f, "{node}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::And(parts) => join(f, parts, " AND "),
            Node::Or(parts) => join(f, parts, " OR "),
            Node::Not(inner) => {
                f.write_str("NOT ")?;
                part(f, inner)
            }
            Node::Test(test) => write!(f, "{test}"),
        }
    }
}

fn join(f: &mut fmt::Formatter<'_>, parts: &[Node], between: &str) -> fmt::Result {
    for (place, node) in parts.iter().enumerate() {
        if place > 0 {
            f.write_str(between)?;
        }
        part(f, node)?;
    }
    Ok(())
}

/// A node inside another; parentheses keep it together.
fn part(f: &mut fmt::Formatter<'_>, node: &Node) -> fmt::Result {
    match node {
        Node::And(_) | Node::Or(_) => write!(f, "({node})"),
        Node::Not(_) | Node::Test(_) => write!(f, "{node}"),
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let equality = |equal: &bool| if *equal { "=" } else { "!=" };
        match self {
            Test::Status { equal, value } => write!(f, "status {} {}", equality(equal), value.as_str()),
            Test::Text { field, op, value } => write!(f, "{field} {} {}", op.symbol(), Quoted(value)),
            Test::Version { op, value } => write!(f, "version {} {value}", op.symbol()),
            Test::Span { field, op, value } => {
                let name = match field {
                    SpanField::Age => "age",
                    SpanField::Idle => "idle",
                };
                write!(f, "{name} {} {}", op.symbol(), write_span(*value))
            }
            Test::Time { field, op, value } => {
                let name = match field {
                    TimeField::Created => "created",
                    TimeField::Updated => "updated",
                };
                write!(f, "{name} {} {}", op.symbol(), write_time(*value))
            }
            Test::Flag { field, equal, value } => {
                let name = match field {
                    FlagField::Blocked => "blocked",
                    FlagField::Paused => "paused",
                    FlagField::Uncertain => "uncertain",
                };
                write!(f, "{name} {} {value}", equality(equal))
            }
        }
    }
}

impl fmt::Display for TextField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TextField::Definition => f.write_str("definition"),
            TextField::SagaId => f.write_str("saga_id"),
            TextField::Step => f.write_str("step"),
            TextField::Participant => f.write_str("participant"),
            TextField::Error => f.write_str("error"),
            TextField::Label(name) => write!(f, "label.{}", Quoted(name)),
        }
    }
}

impl TextOp {
    fn symbol(self) -> &'static str {
        match self {
            TextOp::Equal => "=",
            TextOp::Unequal => "!=",
            TextOp::Contains => ":",
        }
    }
}

impl Comparison {
    fn symbol(self) -> &'static str {
        match self {
            Comparison::Equal => "=",
            Comparison::Unequal => "!=",
            Comparison::Less => "<",
            Comparison::AtMost => "<=",
            Comparison::More => ">",
            Comparison::AtLeast => ">=",
        }
    }
}

/// A text in double quotes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
    }
}
