//! What the rules themselves cost, with nothing around them: `decide`, `apply` and what is owed,
//! from a saga's start to its end, for sagas of more and more step instances.
//!
//! The cost of one instance must not depend on how many there are: the last column is the exponent
//! `k` in `time ~ instances^k` over the sizes shown; 1 is a straight line.
//!
//! `cargo bench --bench core`; `-- --sizes 250,500` for other sizes.

#![expect(clippy::print_stdout, reason = "a program talks to its terminal")]

mod drive;
mod shapes;

use std::time::Duration;

use clap::Parser;

use crate::drive::run;
use crate::shapes::{SHAPES, Shape};

/// Measures the rules by themselves.
#[derive(Debug, Parser)]
struct Core {
    /// Step instances of the sagas measured
    #[arg(long, value_delimiter = ',', default_values_t = [250_usize, 500, 1000, 2000, 4000])]
    sizes: Vec<usize>,
    /// Only shapes whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Given by `cargo bench`
    #[arg(long = "bench", hide = true)]
    by_cargo: bool,
}

fn main() {
    let core = Core::parse();
    println!("{:<44}{:>10}{:>12}{:>12}{:>12}", "shape", "instances", "µs each", "longest µs", "exponent");
    for shape in SHAPES.iter().filter(|shape| shape.name.contains(&core.only)) {
        measure(shape, &core.sizes);
    }
}

fn measure(shape: &Shape, sizes: &[usize]) {
    let mut points: Vec<(f64, f64)> = Vec::new();
    let sizes = if shape.fixed.is_empty() { sizes } else { shape.fixed };
    for &size in sizes.iter().filter(|&&size| size <= shape.most) {
        // The best of three: what else the machine does only ever adds.
        let runs: Vec<_> = (0..3).map(|_| run(shape, size)).collect();
        let best = runs.iter().min_by_key(|run| run.spent).expect("three of them");
        let each = micros(best.spent) / best.instances as f64;
        points.push(((best.instances as f64).ln(), micros(best.spent).ln()));
        let exponent = slope(&points).map_or(String::new(), |k| format!("{k:.2}"));
        let (count, longest) = (best.instances, micros(best.longest));
        println!("{:<44}{count:>10}{each:>12.2}{longest:>12.0}{exponent:>12}", shape.name);
    }
}

fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}

/// The slope of the straight line through `points`.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|p| p.0), mean(|p| p.1));
    let spread: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    let together: f64 = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum();
    (points.len() > 1 && spread > 0.0).then(|| together / spread)
}
