//! The steps of a definition as a directed graph without cycles.

use super::ids::StepIx;

/// Who waits for whom, in both directions, with an order that respects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    after: Vec<Vec<StepIx>>,
    before: Vec<Vec<StepIx>>,
    order: Vec<StepIx>,
    /// The place of each step in `order`.
    ranks: Vec<usize>,
}

impl Plan {
    /// Builds the plan; `after[i]` lists the steps that step `i` waits for.
    ///
    /// # Errors
    /// The steps of one cycle, in order, when there is one.
    pub fn new(after: Vec<Vec<StepIx>>) -> Result<Self, Vec<StepIx>> {
        let mut before = vec![Vec::new(); after.len()];
        for (ix, waits_for) in (0u32..).map(StepIx).zip(&after) {
            for dependency in waits_for {
                before[dependency.at()].push(ix);
            }
        }
        let mut missing: Vec<usize> = after.iter().map(Vec::len).collect();
        let mut order: Vec<StepIx> = Vec::with_capacity(after.len());
        let mut next = 0;
        order.extend((0u32..).map(StepIx).zip(&after).filter(|(_, a)| a.is_empty()).map(|(ix, _)| ix));
        while next < order.len() {
            for &dependent in &before[order[next].at()] {
                missing[dependent.at()] -= 1;
                if missing[dependent.at()] == 0 {
                    order.push(dependent);
                }
            }
            next += 1;
        }
        if order.len() < after.len() {
            return Err(cycle(&after, &missing));
        }
        let mut ranks = vec![0; order.len()];
        for (rank, step) in order.iter().enumerate() {
            ranks[step.at()] = rank;
        }
        Ok(Self { after, before, order, ranks })
    }

    /// The steps that `step` waits for directly.
    #[must_use]
    pub fn after(&self, step: StepIx) -> &[StepIx] {
        &self.after[step.at()]
    }

    /// The steps that wait for `step` directly.
    #[must_use]
    pub fn before(&self, step: StepIx) -> &[StepIx] {
        &self.before[step.at()]
    }

    /// All steps, each behind everything it waits for.
    #[must_use]
    pub fn order(&self) -> &[StepIx] {
        &self.order
    }

    /// The place of `step` in [`Plan::order`].
    #[must_use]
    pub fn rank(&self, step: StepIx) -> usize {
        self.ranks[step.at()]
    }

    /// Everything `step` waits for, directly or not.
    #[must_use]
    pub fn ancestors(&self, step: StepIx) -> Vec<StepIx> {
        let mut seen = vec![false; self.after.len()];
        let mut open = self.after(step).to_vec();
        let mut found = Vec::new();
        while let Some(next) = open.pop() {
            if !std::mem::replace(&mut seen[next.at()], true) {
                found.push(next);
                open.extend_from_slice(self.after(next));
            }
        }
        found.sort_unstable();
        found
    }
}

/// Walks unmet dependencies backwards from any stuck step until one repeats.
fn cycle(after: &[Vec<StepIx>], missing: &[usize]) -> Vec<StepIx> {
    let stuck = |ix: &StepIx| missing[ix.at()] > 0;
    let mut path: Vec<StepIx> = Vec::new();
    let mut here = (0u32..).map(StepIx).take(after.len()).find(stuck);
    while let Some(ix) = here {
        if let Some(start) = path.iter().position(|&seen| seen == ix) {
            path.drain(..start);
            break;
        }
        path.push(ix);
        here = after[ix.at()].iter().copied().find(stuck);
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ixs(list: &[u32]) -> Vec<StepIx> {
        list.iter().copied().map(StepIx).collect()
    }

    #[test]
    fn the_order_puts_each_step_behind_what_it_waits_for() {
        let plan = Plan::new(vec![ixs(&[2]), ixs(&[]), ixs(&[1])]).expect("no cycle");
        assert_eq!(plan.order(), ixs(&[1, 2, 0]));
        assert_eq!(plan.before(StepIx(1)), ixs(&[2]));
        assert_eq!(plan.ancestors(StepIx(0)), ixs(&[1, 2]));
    }

    #[test]
    fn a_cycle_is_named_without_the_steps_that_only_hang_on_it() {
        let found = Plan::new(vec![ixs(&[]), ixs(&[3, 0]), ixs(&[1]), ixs(&[2]), ixs(&[3])]).unwrap_err();
        let mut sorted = found.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, ixs(&[1, 2, 3]));
    }
}
