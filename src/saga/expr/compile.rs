//! From source to a checked tree: what it reads, and whether its size is within bounds.

use std::collections::{BTreeMap, BTreeSet};

use cel::IdedExpr;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr as Tree, LiteralValue, SelectExpr, operators,
};
use cel::parser::PrattParser;

use super::bind::Want;
use super::cost::{Cost, Weight};
use super::path::{OwnOutput, Path, Root};
use super::run::check_pattern;
use super::{
    Body, CompileError, EXPRESSION_DEPTH_MAX, EXPRESSION_MAX_BYTES, Expr, LOOPS_NESTED_MAX, Reads, cut,
};

/// CEL's functions as this engine offers them (macros and operators are not among them).
const FUNCTIONS: [&str; 26] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
    "has",
];

/// Names that stand for types, as in `type(input.amount) == int`.
const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// A tree ready to be evaluated.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) tree: IdedExpr,
    /// Which parts of which variables it reads.
    pub(super) wants: BTreeMap<Root, Want>,
    pub(super) cost: Cost,
}

pub(super) fn compile(source: &str) -> Result<Expr, CompileError> {
    let fail = |Fault { problem, help }| CompileError { expression: cut(source), problem, help };
    let tree = parse(source).map_err(fail)?;
    let mut walk = Walk::default();
    walk.run(&tree).map_err(fail)?;
    let reads = walk.reads();
    let (plain, own) = (plain_path(&tree), own_output(&tree));
    let program = || Box::new(Program { tree, wants: walk.wants, cost: walk.cost });
    let body = match (plain, own) {
        (Some(path), _) => Body::Path(path),
        (None, Some(own)) => Body::Own(own, program()),
        (None, None) => Body::Program(program()),
    };
    Ok(Expr { source: source.to_owned(), reads, body })
}

struct Fault {
    problem: String,
    help: Option<String>,
}

fn fault(problem: impl Into<String>) -> Fault {
    Fault { problem: problem.into(), help: None }
}

fn parse(source: &str) -> Result<IdedExpr, Fault> {
    if source.trim().is_empty() {
        return Err(fault("the expression is empty"));
    }
    if source.len() > EXPRESSION_MAX_BYTES {
        return Err(fault(format!(
            "the expression has {} bytes; at most {EXPRESSION_MAX_BYTES} are allowed",
            source.len()
        )));
    }
    // The parser recurses; its own limit keeps that far from the end of any stack.
    let depth = u16::try_from(EXPRESSION_DEPTH_MAX).expect("the limit is small");
    PrattParser::new().max_recursion_depth(depth).parse(source).map_err(|errors| {
        match errors.errors.first() {
            Some(first) if first.pos.0 > 0 => fault(format!(
                "{} (line {}, column {} of the expression)",
                first.msg, first.pos.0, first.pos.1
            )),
            Some(first) => fault(first.msg.clone()),
            None => fault("not a CEL expression"),
        }
    })
}

/// A chain of selections with fixed keys on a name, outermost last.
fn chain(tree: &IdedExpr) -> Option<(&str, Vec<&str>)> {
    let mut keys = Vec::new();
    let mut here = &tree.expr;
    loop {
        match here {
            Tree::Ident(name) => {
                keys.reverse();
                return Some((name, keys));
            }
            Tree::Select(select) => {
                keys.push(select.field.as_str());
                here = &select.operand.expr;
            }
            Tree::Call(call) => {
                let (operand, key) = fixed_index(call)?;
                keys.push(key);
                here = &operand.expr;
            }
            _ => return None,
        }
    }
}

/// The operand and the key of `operand['key']`.
fn fixed_index(call: &CallExpr) -> Option<(&IdedExpr, &str)> {
    match call.args.as_slice() {
        [operand, key] if call.func_name == operators::INDEX => match &key.expr {
            Tree::Literal(LiteralValue::String(text)) => Some((operand, text.inner())),
            _ => None,
        },
        _ => None,
    }
}

/// `steps.NAME[index]` with fixed keys below it.
fn own_output(tree: &IdedExpr) -> Option<OwnOutput> {
    let (mut keys, mut here) = (Vec::new(), &tree.expr);
    loop {
        match here {
            Tree::Select(select) if !select.test => {
                keys.push(select.field.clone());
                here = &select.operand.expr;
            }
            Tree::Call(call) => {
                if let Some((operand, key)) = fixed_index(call) {
                    keys.push(key.to_owned());
                    here = &operand.expr;
                    continue;
                }
                let [list, place] = call.args.as_slice() else { return None };
                let is_own = matches!(&place.expr, Tree::Ident(name) if name == Root::Index.name());
                let (root, step) = chain(list)?;
                let ([step], true) = (step.as_slice(), is_own && root == Root::Steps.name()) else {
                    return None;
                };
                keys.reverse();
                let is_index = call.func_name == operators::INDEX;
                return is_index.then(|| OwnOutput { step: (*step).to_owned(), keys });
            }
            _ => return None,
        }
    }
}

fn plain_path(tree: &IdedExpr) -> Option<Path> {
    let is_test = matches!(&tree.expr, Tree::Select(SelectExpr { test: true, .. }));
    let (name, keys) = chain(tree)?;
    // `has(a.b)` is a question; deeper down a chain cannot hold one.
    let root = Root::named(name).filter(|_| !is_test)?;
    Some(Path { root, keys: keys.into_iter().map(str::to_owned).collect() })
}

/// The loops around a part of the tree, and how often they make it run.
#[derive(Debug, Clone, Copy)]
struct Loops<'a> {
    variables: [Option<&'a str>; LOOPS_NESTED_MAX],
    weight: Weight,
    /// Inside what is looped over.
    in_range: bool,
}

struct Visit<'a> {
    tree: &'a IdedExpr,
    depth: u32,
    loops: Loops<'a>,
}

/// Walks a tree with a stack of its own: a deep tree is refused, not recursed into.
#[derive(Default)]
struct Walk {
    wants: BTreeMap<Root, Want>,
    steps: BTreeSet<String>,
    cost: Cost,
}

impl Walk {
    fn reads(&self) -> Reads {
        let has = |root| self.wants.contains_key(&root);
        Reads {
            input: has(Root::Input),
            item: has(Root::Item),
            index: has(Root::Index),
            failure: has(Root::Failure),
            saga: has(Root::Saga),
            steps: self.steps.iter().cloned().collect(),
        }
    }

    fn run(&mut self, tree: &IdedExpr) -> Result<(), Fault> {
        let loops = Loops { variables: [None; LOOPS_NESTED_MAX], weight: Weight::Once, in_range: false };
        let mut open = vec![Visit { tree, depth: 1, loops }];
        while let Some(visit) = open.pop() {
            if visit.depth > EXPRESSION_DEPTH_MAX {
                return Err(fault(format!("the expression nests deeper than {EXPRESSION_DEPTH_MAX}")));
            }
            self.cost.node(visit.loops.weight);
            self.visit(&visit, &mut open)?;
        }
        Ok(())
    }

    fn visit<'a>(&mut self, visit: &Visit<'a>, open: &mut Vec<Visit<'a>>) -> Result<(), Fault> {
        if let Some((name, keys)) = chain(visit.tree) {
            return self.name(name, &keys, visit);
        }
        let mut push = |tree| open.push(Visit { tree, depth: visit.depth + 1, loops: visit.loops });
        match &visit.tree.expr {
            Tree::Ident(_) | Tree::Literal(_) => {}
            Tree::Select(select) => push(&select.operand),
            Tree::Call(call) => {
                check_function(call)?;
                match call.func_name.as_str() {
                    operators::ADD => self.cost.concatenation(visit.loops.in_range),
                    "matches" => check_matches(call, &visit.loops)?,
                    _ => {}
                }
                call.target.iter().for_each(|target| push(target));
                call.args.iter().for_each(push);
            }
            Tree::List(list) => {
                self.cost.literal(list.elements.len());
                list.elements.iter().for_each(push);
            }
            Tree::Map(map) => {
                self.cost.literal(map.entries.len());
                for entry in &map.entries {
                    match &entry.expr {
                        EntryExpr::MapEntry(entry) => {
                            push(&entry.key);
                            push(&entry.value);
                        }
                        EntryExpr::StructField(field) => push(&field.value),
                    }
                }
            }
            Tree::Comprehension(comprehension) => enter_loop(comprehension, visit, open)?,
            Tree::Struct(message) => {
                return Err(fault(format!(
                    "`{}{{…}}` makes a message; only maps are known here",
                    message.type_name
                )));
            }
            Tree::Unspecified => return Err(fault("part of the expression is missing")),
        }
        Ok(())
    }

    /// A name, with the fixed keys selected below it.
    fn name(&mut self, name: &str, keys: &[&str], visit: &Visit<'_>) -> Result<(), Fault> {
        let loops = &visit.loops;
        if let Some(level) = loops.variables.iter().rposition(|variable| *variable == Some(name)) {
            let innermost = loops.variables.iter().flatten().count() == level + 1;
            match loops.weight {
                Weight::Once | Weight::Each => self.cost.own_read(),
                Weight::Nested if innermost => self.cost.own_read(),
                Weight::Nested | Weight::Pairs => self.cost.repeated_read(),
            }
            return Ok(());
        }
        // The accumulator of a loop; it cannot be written in source.
        if name.starts_with('@') {
            return Ok(());
        }
        let depth = visit.depth.saturating_add(u32::try_from(keys.len()).unwrap_or(u32::MAX));
        if depth > EXPRESSION_DEPTH_MAX {
            return Err(fault(format!("the expression nests deeper than {EXPRESSION_DEPTH_MAX}")));
        }
        let Some(root) = Root::named(name) else {
            return if keys.is_empty() && TYPES.contains(&name) {
                Ok(())
            } else {
                Err(unknown_variable(name))
            };
        };
        check_keys(root, keys)?;
        if let (Root::Steps, Some(step)) = (root, keys.first()) {
            self.steps.insert((*step).to_owned());
        }
        self.wants.entry(root).or_insert_with(Want::nothing).add(keys);
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        self.cost.read(Path { root, keys }, loops.weight);
        Ok(())
    }
}

/// Pushes a loop's parts: its range runs where the loop stands, its body for each entry.
fn enter_loop<'a>(
    comprehension: &'a ComprehensionExpr,
    visit: &Visit<'a>,
    open: &mut Vec<Visit<'a>>,
) -> Result<(), Fault> {
    let outside = visit.loops;
    let Some(level) = outside.variables.iter().position(Option::is_none) else {
        return Err(fault(format!("more than {LOOPS_NESTED_MAX} loops run inside one another")));
    };
    let over_own_entry = chain(&comprehension.iter_range)
        .is_some_and(|(name, _)| outside.variables.iter().flatten().next_back() == Some(&name));
    let mut inside = outside;
    inside.variables[level] = Some(&comprehension.iter_var);
    inside.weight = match outside.weight {
        Weight::Once => Weight::Each,
        Weight::Each | Weight::Nested if over_own_entry => Weight::Nested,
        Weight::Each | Weight::Nested | Weight::Pairs => Weight::Pairs,
    };
    let mut push = |tree, loops| open.push(Visit { tree, depth: visit.depth + 1, loops });
    push(&comprehension.iter_range, Loops { in_range: true, ..outside });
    push(&comprehension.accu_init, outside);
    push(&comprehension.loop_cond, inside);
    push(&comprehension.loop_step, inside);
    push(&comprehension.result, inside);
    Ok(())
}

fn check_function(call: &CallExpr) -> Result<(), Fault> {
    let name = call.func_name.as_str();
    let is_operator = name.contains('_') || name.starts_with('@');
    if is_operator || FUNCTIONS.contains(&name) {
        return Ok(());
    }
    Err(Fault {
        problem: format!("there is no function `{name}`"),
        help: Some(format!(
            "the functions are {}; the loops all, exists, exists_one, filter, map",
            FUNCTIONS.join(", ")
        )),
    })
}

/// A pattern is compiled at each evaluation, which may take milliseconds: it is known beforehand and
/// not repeated for each entry of a list.
fn check_matches(call: &CallExpr, loops: &Loops<'_>) -> Result<(), Fault> {
    let Some(Tree::Literal(LiteralValue::String(pattern))) = call.args.last().map(|pattern| &pattern.expr)
    else {
        return Err(fault("the pattern of `matches` stands in the expression, in quotes"));
    };
    if loops.weight != Weight::Once {
        return Err(Fault {
            problem: "`matches` cannot run inside a loop".to_owned(),
            help: Some("use contains, startsWith or endsWith, or a `pattern` in the input_schema".to_owned()),
        });
    }
    check_pattern(pattern.inner()).map_err(fault)
}

fn check_keys(root: Root, keys: &[&str]) -> Result<(), Fault> {
    let allowed: &[&str] = match root {
        Root::Steps if keys.is_empty() => {
            return Err(Fault {
                problem: "`steps` needs the name of a step in so many words".to_owned(),
                help: Some("write steps['name-of-step']".to_owned()),
            });
        }
        Root::Input | Root::Steps | Root::Item | Root::Index => return Ok(()),
        Root::Failure => &["step", "code", "message"],
        Root::Saga => &["id", "labels"],
    };
    match keys.first() {
        Some(first) if !allowed.contains(first) => Err(Fault {
            problem: format!("`{}` has no `{first}`", root.name()),
            help: Some(format!("it has {}", allowed.join(", "))),
        }),
        Some(_) | None => Ok(()),
    }
}

fn unknown_variable(name: &str) -> Fault {
    let known = Root::ALL.map(Root::name).join(", ");
    Fault {
        problem: format!("there is no variable `{name}`"),
        help: Some(format!("the variables are {known}; a text stands in quotes")),
    }
}
