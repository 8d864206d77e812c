//! A list that is cheap to copy, cheap to change in one place, and knows what its items come to.
//!
//! ```text
//!           [ sum of all ]                 a copy shares every node;
//!          /       |      \                a change copies the nodes above one item
//!      [sum]     [sum]   [sum]             and adds up again what is below them;
//!      /| |\     /| |\    /|\              a search goes only where the sum says
//!     i i i i   i i i i  i i i             that there is something to find
//! ```
//!
//! Sums are made of the items alone, so nothing has to be kept in step with anything.

use std::fmt;
use std::ops::Index;
use std::sync::Arc;

/// Items below one node are `2^BITS`: few, since a change copies that many pointers a level.
const BITS: u32 = 3;
const WIDTH: usize = 1 << BITS;

/// Something that is counted.
pub trait Summed {
    /// What it and its like come to.
    type Sum: Sum;

    /// What it comes to alone.
    fn sum(&self) -> Self::Sum;
}

/// What several things come to. The default is what nothing comes to.
pub trait Sum: Clone + Default + PartialEq {
    /// Adds what others come to. The order must not matter.
    fn add(&mut self, other: &Self);
}

/// A list of fixed length.
pub struct Row<T: Summed> {
    root: Arc<Node<T>>,
    len: usize,
    /// Levels between the root and the items; at least 1.
    height: u32,
}

#[derive(Clone)]
struct Node<T: Summed> {
    sum: T::Sum,
    body: Body<T>,
}

#[derive(Clone)]
enum Body<T: Summed> {
    Item(T),
    Part(Vec<Arc<Node<T>>>),
}

impl<T: Summed> Row<T> {
    /// The same item `count` times; all of them are one until they are changed.
    #[must_use]
    pub fn repeat(item: T, count: usize) -> Self {
        let node = Arc::new(Node::item(item));
        Self::over(vec![node; count])
    }

    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What all items come to.
    #[must_use]
    pub fn sum(&self) -> &T::Sum {
        &self.root.sum
    }

    /// The item at `place`.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&T> {
        match &self.node(place)?.body {
            Body::Item(item) => Some(item),
            Body::Part(_) => None,
        }
    }

    /// What the item at `place` comes to, as it was found when the item was put there.
    #[must_use]
    pub fn sum_of(&self, place: usize) -> Option<&T::Sum> {
        Some(&self.node(place)?.sum)
    }

    fn node(&self, place: usize) -> Option<&Node<T>> {
        if place >= self.len {
            return None;
        }
        let mut node = &self.root;
        for level in (0..self.height).rev() {
            work::note();
            let Body::Part(below) = &node.body else { return None };
            node = below.get((place >> (BITS * level)) & (WIDTH - 1))?;
        }
        Some(node)
    }

    /// All items in order.
    pub fn iter(&self) -> Items<'_, T> {
        Items { row: self, next: 0 }
    }

    /// The first place from `from` on whose item comes to something `wanted`. What is wanted of one
    /// item must be wanted of every sum it is part of.
    pub fn next(&self, from: usize, wanted: impl Fn(&T::Sum) -> bool) -> Option<usize> {
        self.root.next(self.height, 0, from, &wanted)
    }

    /// The last such place before `before`.
    pub fn previous(&self, before: usize, wanted: impl Fn(&T::Sum) -> bool) -> Option<usize> {
        self.root.previous(self.height, 0, before, &wanted)
    }

    /// Whether every sum is that of the items below it.
    #[must_use]
    pub fn is_summed_up(&self) -> bool {
        self.root.is_summed_up()
    }

    fn over(mut nodes: Vec<Arc<Node<T>>>) -> Self {
        let (len, mut height) = (nodes.len(), 1);
        while nodes.len() > WIDTH {
            nodes = nodes.chunks(WIDTH).map(|part| Arc::new(Node::part(part.to_vec()))).collect();
            height += 1;
        }
        Self { root: Arc::new(Node::part(nodes)), len, height }
    }
}

impl<T: Summed + Clone> Row<T> {
    /// Changes the item at `place`, and what it comes to; `None` when there is no such item.
    pub fn change<R>(&mut self, place: usize, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        (place < self.len).then(|| Node::change(&mut self.root, self.height, place, change)).flatten()
    }
}

impl<T: Summed> Node<T> {
    fn item(item: T) -> Self {
        Self { sum: item.sum(), body: Body::Item(item) }
    }

    fn part(nodes: Vec<Arc<Self>>) -> Self {
        Self { sum: total(&nodes), body: Body::Part(nodes) }
    }

    fn next(&self, level: u32, base: usize, from: usize, wanted: &impl Fn(&T::Sum) -> bool) -> Option<usize> {
        work::note();
        if base + span(level) <= from || !wanted(&self.sum) {
            return None;
        }
        match &self.body {
            Body::Item(_) => Some(base),
            Body::Part(nodes) => {
                let mut below = nodes.iter().enumerate();
                below.find_map(|(n, node)| node.next(level - 1, base + n * span(level - 1), from, wanted))
            }
        }
    }

    fn previous(
        &self,
        level: u32,
        base: usize,
        before: usize,
        wanted: &impl Fn(&T::Sum) -> bool,
    ) -> Option<usize> {
        work::note();
        if base >= before || !wanted(&self.sum) {
            return None;
        }
        match &self.body {
            Body::Item(_) => Some(base),
            Body::Part(nodes) => {
                let mut below = nodes.iter().enumerate().rev();
                below.find_map(|(n, node)| {
                    node.previous(level - 1, base + n * span(level - 1), before, wanted)
                })
            }
        }
    }

    fn is_summed_up(&self) -> bool {
        match &self.body {
            Body::Item(item) => self.sum == item.sum(),
            Body::Part(nodes) => self.sum == total(nodes) && nodes.iter().all(|node| node.is_summed_up()),
        }
    }
}

impl<T: Summed + Clone> Node<T> {
    fn change<R>(
        node: &mut Arc<Self>,
        level: u32,
        place: usize,
        change: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        work::note();
        let Self { sum, body } = Arc::make_mut(node);
        match body {
            Body::Item(item) => {
                let given = change(item);
                *sum = item.sum();
                Some(given)
            }
            Body::Part(nodes) => {
                let below = nodes.get_mut((place >> (BITS * (level - 1))) & (WIDTH - 1))?;
                let given = Self::change(below, level - 1, place, change);
                *sum = total(nodes);
                given
            }
        }
    }
}

/// Items below a full node at `level`.
fn span(level: u32) -> usize {
    1 << (BITS * level)
}

fn total<T: Summed>(nodes: &[Arc<Node<T>>]) -> T::Sum {
    nodes.iter().fold(T::Sum::default(), |mut sum, node| {
        sum.add(&node.sum);
        sum
    })
}

impl<T: Summed> Clone for Row<T> {
    fn clone(&self) -> Self {
        Self { root: Arc::clone(&self.root), len: self.len, height: self.height }
    }
}

impl<T: Summed> FromIterator<T> for Row<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self::over(items.into_iter().map(|item| Arc::new(Node::item(item))).collect())
    }
}

impl<T: Summed> Index<usize> for Row<T> {
    type Output = T;

    fn index(&self, place: usize) -> &T {
        self.get(place).expect("the place of an item, as with any list")
    }
}

impl<T: Summed + PartialEq> PartialEq for Row<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && same(&self.root, &other.root)
    }
}

/// Whether two nodes hold equal items; shared ones need no look.
fn same<T: Summed + PartialEq>(one: &Arc<Node<T>>, other: &Arc<Node<T>>) -> bool {
    Arc::ptr_eq(one, other)
        || match (&one.body, &other.body) {
            (Body::Item(one), Body::Item(other)) => one == other,
            (Body::Part(some), Body::Part(others)) => {
                some.len() == others.len() && some.iter().zip(others).all(|(one, other)| same(one, other))
            }
            (Body::Item(_), Body::Part(_)) | (Body::Part(_), Body::Item(_)) => false,
        }
}

impl<T: Summed + fmt::Debug> fmt::Debug for Row<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

/// The items of a row in order.
pub struct Items<'a, T: Summed> {
    row: &'a Row<T>,
    next: usize,
}

impl<'a, T: Summed> Iterator for Items<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        let item = self.row.get(self.next)?;
        self.next += 1;
        Some(item)
    }
}

impl<'a, T: Summed> IntoIterator for &'a Row<T> {
    type Item = &'a T;
    type IntoIter = Items<'a, T>;

    fn into_iter(self) -> Items<'a, T> {
        self.iter()
    }
}

/// Counts the nodes that are visited, so that tests can say what a decision costs without a clock.
pub(super) mod work {
    #[cfg(test)]
    std::thread_local! {
        static NODES: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }

    #[cfg(test)]
    pub fn note() {
        NODES.with(|nodes| nodes.set(nodes.get() + 1));
    }

    #[cfg(not(test))]
    pub fn note() {}

    /// Nodes visited on this thread so far.
    #[cfg(test)]
    pub fn done() -> u64 {
        NODES.with(std::cell::Cell::get)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Mark(bool);

    impl Sum for u32 {
        fn add(&mut self, other: &Self) {
            *self += other;
        }
    }

    impl Summed for Mark {
        type Sum = u32;

        fn sum(&self) -> u32 {
            self.0.into()
        }
    }

    fn row(marks: &[bool]) -> Row<Mark> {
        marks.iter().copied().map(Mark).collect()
    }

    proptest! {
        #[test]
        fn it_answers_as_a_plain_list_does(
            mut plain in prop::collection::vec(any::<bool>(), 0..600),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..20),
            from in 0usize..610,
        ) {
            let mut list = row(&plain);
            for (pick, mark) in changes {
                if !plain.is_empty() {
                    let place = pick.index(plain.len());
                    plain[place] = mark;
                    list.change(place, |item| item.0 = mark);
                }
            }
            prop_assert_eq!(list.iter().map(|mark| mark.0).collect::<Vec<_>>(), plain.clone());
            prop_assert_eq!(*list.sum() as usize, plain.iter().filter(|&&mark| mark).count());
            prop_assert!(list.is_summed_up() && list == row(&plain) && list.len() == plain.len());
            let next = (from..plain.len()).find(|&at| plain[at]);
            prop_assert_eq!(list.next(from, |&sum| sum > 0), next);
            let previous = (0..from.min(plain.len())).rev().find(|&at| plain[at]);
            prop_assert_eq!(list.previous(from, |&sum| sum > 0), previous);
            prop_assert_eq!(list.get(plain.len()), None);
        }
    }

    #[test]
    fn a_change_leaves_copies_as_they_were() {
        let before = Row::repeat(Mark(false), 100);
        let mut after = before.clone();
        after.change(57, |mark| mark.0 = true);
        assert_eq!((*before.sum(), *after.sum()), (0, 1));
        assert_eq!((before[57], after[57], after[56]), (Mark(false), Mark(true), Mark(false)));
        assert_eq!(after.change(100, |_| ()), None);
    }

    #[test]
    fn a_search_goes_only_where_there_is_something() {
        let mut list = Row::repeat(Mark(false), 4_000);
        list.change(3_999, |mark| mark.0 = true);
        let before = work::done();
        assert_eq!(list.next(0, |&sum| sum > 0), Some(3_999));
        assert!(work::done() - before <= 4 * WIDTH as u64 + 1);
    }
}
