//! Requests from the wire become valid types, or are refused with everything that is wrong at once.

mod definition;
mod operations;
mod registry;
mod saga;
mod violations;

pub use definition::{ListDefinitions, definition_version, list_definitions, next_page_token, source};
pub use operations::{list_stuck, participant_act, repair};
pub use registry::{complete_step, only_participant, register_handlers, registration_id, worker_hello};
pub use saga::{Cancel, Start, Wait, cancel, list, saga_id, start, wait};
