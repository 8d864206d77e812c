//! Records as bytes, and back.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::BytesCount;
use sagad::saga::event::Fact;
use sagad::store::Summary;
use sagad::store::codec::fact::{decode_facts, encode_facts};
use sagad::store::codec::frame;
use sagad::store::codec::summary::{decode_summary, encode_summary};

use crate::records::life;

/// What a commit in the middle of a saga adds to its journal: a result and the next intent.
fn transition() -> Vec<Fact> {
    life(0, 1).swap_remove(1).facts
}

fn summary() -> Summary {
    life(0, 1).swap_remove(1).summary
}

#[divan::bench]
fn encode_transition(bencher: Bencher<'_, '_>) {
    let facts = transition();
    let bytes = BytesCount::new(encode_facts(&facts).len());
    bencher.counter(bytes).bench(|| encode_facts(black_box(&facts)));
}

#[divan::bench]
fn decode_transition(bencher: Bencher<'_, '_>) {
    let bytes = encode_facts(&transition());
    let counted = BytesCount::new(bytes.len());
    bencher.counter(counted).bench(|| decode_facts(black_box(&bytes)).expect("what was encoded"));
}

#[divan::bench]
fn encode_a_summary(bencher: Bencher<'_, '_>) {
    let summary = summary();
    bencher.bench(|| encode_summary(black_box(&summary)));
}

#[divan::bench]
fn decode_a_summary(bencher: Bencher<'_, '_>) {
    let bytes = encode_summary(&summary());
    bencher.bench(|| decode_summary(black_box(&bytes)).expect("what was encoded"));
}

/// Bytes of a record that fits one row, and of one that takes many.
#[divan::bench(args = [300, 100_000])]
fn seal(bencher: Bencher<'_, '_>, bytes: usize) {
    let content = vec![0x5a; bytes];
    let key = b"a record's key of usual length, or so";
    bencher.counter(BytesCount::new(bytes)).bench(|| frame::seal(black_box(key), &content));
}
