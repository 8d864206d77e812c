//! The evaluation of a compiled program against a scope.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, Expr as Tree, LiteralValue};
use cel::common::types::{CelInt, CelMap, CelNull};
use cel::common::value::Val;
use cel::{Context, Env, ExecutionError, IdedExpr};
use serde_json::Value;

use super::bind::{Want, bind, bind_wanted, map_key, to_json};
use super::compile::Program;
use super::path::{Path, Root, failure_value, index_value, saga_value, select};
use super::{Scope, WORK_MAX};

/// CEL's standard functions; shared, because building them costs more than an evaluation.
static STANDARD: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// What the scope makes on request, kept while CEL borrows from it.
struct Gathered {
    steps: BTreeMap<String, Value>,
    failure: Value,
    saga: Value,
    index: Value,
}

impl Gathered {
    fn new(program: &Program, scope: &Scope<'_>) -> Self {
        let wants = |root| program.wants.contains_key(&root);
        let steps = match program.wants.get(&Root::Steps) {
            Some(Want::Keys(names)) => names.keys().map(|name| (name.clone(), (scope.steps)(name))).collect(),
            Some(Want::Whole) | None => BTreeMap::new(),
        };
        Self {
            steps,
            failure: if wants(Root::Failure) { failure_value(scope.failure) } else { Value::Null },
            saga: if wants(Root::Saga) { saga_value(scope) } else { Value::Null },
            index: index_value(scope),
        }
    }

    /// The value at `path`, for measuring.
    fn at<'v>(&'v self, path: &Path, scope: &Scope<'v>) -> &'v Value {
        const NULL: &Value = &Value::Null;
        let found = match path.root {
            Root::Input => select(scope.input, &path.keys),
            Root::Item => select(scope.item.map_or(NULL, |(item, _)| item), &path.keys),
            Root::Steps => match path.keys.split_first() {
                Some((step, below)) => select(self.steps.get(step).unwrap_or(NULL), below),
                None => Ok(NULL),
            },
            Root::Index => Ok(&self.index),
            Root::Failure => select(&self.failure, &path.keys),
            Root::Saga => select(&self.saga, &path.keys),
        };
        found.unwrap_or(NULL)
    }

    fn bind<'v>(&'v self, root: Root, want: &Want, scope: &Scope<'v>) -> Result<Box<dyn Val + 'v>, String> {
        match root {
            Root::Input => bind_wanted(scope.input, want),
            Root::Item => match scope.item {
                Some((item, _)) => bind_wanted(item, want),
                None => Ok(Box::new(CelNull)),
            },
            Root::Steps => self.bind_steps(want),
            Root::Index => match scope.item {
                Some((_, index)) => Ok(Box::new(CelInt::from(i64::try_from(index).unwrap_or(i64::MAX)))),
                None => Ok(Box::new(CelNull)),
            },
            Root::Failure => bind(&self.failure),
            Root::Saga => bind_wanted(&self.saga, want),
        }
    }

    fn bind_steps<'v>(&'v self, want: &Want) -> Result<Box<dyn Val + 'v>, String> {
        let Want::Keys(wanted) = want else {
            return Err("`steps` needs the name of a step".to_owned());
        };
        let mut bound = HashMap::with_capacity(wanted.len());
        for (name, output) in &self.steps {
            let want = wanted.get(name).unwrap_or(&Want::Whole);
            bound.insert(map_key(name), bind_wanted(output, want)?);
        }
        Ok(Box::new(CelMap::from(bound)))
    }
}

/// Whether CEL takes `pattern` as a regular expression.
pub(super) fn check_pattern(pattern: &str) -> Result<(), String> {
    let literal =
        |text: &str| IdedExpr { id: 0, expr: Tree::Literal(LiteralValue::String(text.to_owned().into())) };
    let call = CallExpr {
        func_name: "matches".to_owned(),
        target: Some(Box::new(literal(""))),
        args: vec![literal(pattern)],
    };
    let tree = IdedExpr { id: 0, expr: Tree::Call(call) };
    let context = Context::with_env(Arc::clone(&STANDARD));
    cel::Value::resolve(&tree, &context).map(|_| ()).map_err(|error| error.to_string())
}

impl Program {
    /// The program's value.
    pub(super) fn run(&self, scope: &Scope<'_>) -> Result<Value, String> {
        let gathered = Gathered::new(self, scope);
        if self.cost.is_open() {
            let work = self.cost.work(|path| gathered.at(path, scope));
            if work > WORK_MAX {
                return Err(format!(
                    "the lists are too long for what is done with them: {work} values would be visited, at most {WORK_MAX} may"
                ));
            }
        }
        let mut context = Context::with_env(Arc::clone(&STANDARD));
        for (root, want) in &self.wants {
            context.add_variable_as_val(root.name(), gathered.bind(*root, want, scope)?);
        }
        // The evaluator has a few `panic!`s for trees its parser does not make; one of them must
        // not take a shard down.
        let evaluate = || match cel::Value::resolve(&self.tree, &context) {
            Ok(value) => to_json(value),
            Err(error) if means_absent(&error) => Ok(Value::Null),
            Err(error) => Err(error.to_string()),
        };
        catch_unwind(AssertUnwindSafe(evaluate))
            .unwrap_or_else(|_| Err("the evaluator failed; please report this expression".to_owned()))
    }
}

/// A missing key, or a selection below null.
fn means_absent(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::NoSuchKey(_) => true,
        ExecutionError::NoSuchOverload(overload) => {
            matches!(overload.function(), "_._" | "_[_]")
                && overload.argument_types().first().is_some_and(|of| of == "null_type")
        }
        _ => false,
    }
}
