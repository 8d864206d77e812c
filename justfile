# The project's habits. `just` lists them.

_default:
    @just --list

# Everything that must hold before a change lands; never writes.
check:
    .ci/run

# Formats, and applies what clippy can mend by itself.
fix:
    cargo clippy --fix --allow-dirty --allow-staged --workspace --all-features --all-targets
    cargo fmt --all

# The tests, as in the README.
test *args:
    ./test {{args}}

# The examples in each language against the real daemon.
examples:
    cargo test --locked --test examples

# The show: 500 orders at once, crashes, an accounting.
demo:
    cargo run --release -- demo

# The sample shop, to play with.
dev:
    cargo run --release -- dev

# Kills the daemon N times under load and prints what was lost (nothing).
kill-test N="200" seed="1":
    SAGAD_KILLS={{N}} SAGAD_SEED={{seed}} cargo test --locked --test daemon -- --nocapture is_killed

# Cuts the power N times under load: only what was synced is left.
power-cut N="200" seed="1":
    SAGAD_POWER_CUTS={{N}} SAGAD_SEED={{seed}} cargo test --locked --test daemon -- --nocapture power_is_cut

# Flips bits in the store's files and truncates them, N times.
damage N="500" seed="1":
    SAGAD_DAMAGES={{N}} SAGAD_SEED={{seed}} cargo test --locked --test daemon -- --nocapture damage_is

# N duplicated, reordered, cut off and concurrent calls of a shop with the barrier in a real PostgreSQL.
storm N="100000" seed="1":
    SAGAD_BARRIER_CALLS={{N}} SAGAD_BARRIER_SEED={{seed}} cargo test --locked -p sagad-barrier --all-features --test storm -- --nocapture in_a_storm

# The simulated world, N cases.
sim-long N="20000":
    SAGAD_SIM_CASES={{N}} cargo test --locked --lib saga::sim -- --nocapture

# Replays one simulated world.
sim SEED:
    SAGAD_SIM_SEED={{SEED}} cargo test --locked --lib saga::sim -- --nocapture

# Sagas end to end against the machine's own limits; fails when a bar is missed. Nothing else should
# run meanwhile. `just bench --only order3 --seconds 5` runs a part.
bench *args:
    cargo bench --locked --bench bench -- {{args}}

# The rules by themselves, for sagas of more and more instances.
bench-core *args:
    cargo bench --locked --bench core -- {{args}}

# Licences, bans and sources of everything we depend on (needs cargo-deny).
deny:
    cargo deny check licenses bans sources

# Overload for longer: each flood for so many seconds.
bench-overload seconds="60":
    cargo bench --locked --bench bench -- --only overload --seconds {{seconds}}

# A start with N open sagas that wait for something far away (a million: some 2 GB of disk for a while).
bench-open N="1000000":
    cargo bench --locked --bench bench -- --only open --open {{N}}

# A start and order3 with N ended sagas behind it (five million: some 15 GB of disk for a while).
bench-history N="5000000":
    cargo bench --locked --bench bench -- --only history --ended {{N}} --seconds 15

# Single components: the rules, the codec, expressions, commits, calls.
bench-parts *args:
    cargo bench --locked --bench parts -- {{args}}

# The bench with another engine below the store, `fjall` or `log`; see docs/performance.md.
bench-engine engine *args:
    .ci/bench-engine {{engine}} {{args}}

# Samples the daemon's processor time under order3 at 64 in flight: target/profile.svg.
profile seconds="20":
    .ci/profile {{seconds}}
