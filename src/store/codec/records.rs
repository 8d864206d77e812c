//! Lock tickets, definitions, registrations and pauses as stored.

use std::sync::Arc;

use prost::Message;

use super::fact_read::{digest, invalid};
use super::{CodecError, decode};
use crate::saga::ids::{DefinitionName, LockKey, ParticipantName, SagaId, Timestamp, Version};
use crate::store::{LockTicket, StoredDefinition, StoredPause, StoredRegistration};

#[derive(Clone, PartialEq, Message)]
struct TicketForm {
    #[prost(uint64, tag = "1")]
    ticket: u64,
    #[prost(string, tag = "2")]
    saga: String,
    #[prost(string, repeated, tag = "3")]
    keys: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct DefinitionForm {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    version: u32,
    #[prost(bytes = "vec", tag = "3")]
    digest: Vec<u8>,
    #[prost(string, tag = "4")]
    source: String,
    #[prost(bool, tag = "5")]
    active: bool,
    #[prost(sint64, tag = "6")]
    created_at: i64,
}

#[derive(Clone, PartialEq, Message)]
struct RegistrationForm {
    #[prost(string, tag = "1")]
    registration_id: String,
    #[prost(bytes = "vec", tag = "2")]
    body: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct PauseForm {
    #[prost(string, tag = "1")]
    participant: String,
    #[prost(string, tag = "2")]
    reason: String,
    #[prost(string, tag = "3")]
    actor: String,
    #[prost(sint64, tag = "4")]
    since: i64,
}

/// A lock ticket as bytes.
#[must_use]
pub fn encode_ticket(ticket: &LockTicket) -> Vec<u8> {
    let keys = ticket.keys.iter().map(ToString::to_string).collect();
    TicketForm { ticket: ticket.ticket, saga: ticket.saga.to_string(), keys }.encode_to_vec()
}

/// Reads back what [`encode_ticket`] wrote.
pub fn decode_ticket(bytes: &[u8]) -> Result<LockTicket, CodecError> {
    let form: TicketForm = decode("a lock ticket", bytes)?;
    let keys = form.keys.iter().map(|key| LockKey::parse(key).map_err(invalid));
    Ok(LockTicket {
        ticket: form.ticket,
        keys: keys.collect::<Result<_, _>>()?,
        saga: SagaId::parse(&form.saga).map_err(invalid)?,
    })
}

/// A definition version as bytes.
#[must_use]
pub fn encode_definition(definition: &StoredDefinition) -> Vec<u8> {
    DefinitionForm {
        name: definition.name.to_string(),
        version: definition.version.0,
        digest: definition.digest.0.to_vec(),
        source: definition.source.to_string(),
        active: definition.active,
        created_at: definition.created_at.0,
    }
    .encode_to_vec()
}

/// Reads back what [`encode_definition`] wrote.
pub fn decode_definition(bytes: &[u8]) -> Result<StoredDefinition, CodecError> {
    let form: DefinitionForm = decode("a definition", bytes)?;
    Ok(StoredDefinition {
        name: DefinitionName::parse(&form.name).map_err(invalid)?,
        version: Version(form.version),
        digest: digest(&form.digest)?,
        source: Arc::from(form.source),
        active: form.active,
        created_at: Timestamp(form.created_at),
    })
}

/// A registration as bytes.
#[must_use]
pub fn encode_registration(registration: &StoredRegistration) -> Vec<u8> {
    RegistrationForm {
        registration_id: registration.registration_id.clone(),
        body: registration.body.clone(),
    }
    .encode_to_vec()
}

/// Reads back what [`encode_registration`] wrote.
pub fn decode_registration(bytes: &[u8]) -> Result<StoredRegistration, CodecError> {
    let form: RegistrationForm = decode("a registration", bytes)?;
    Ok(StoredRegistration { registration_id: form.registration_id, body: form.body })
}

/// A pause as bytes.
#[must_use]
pub fn encode_pause(pause: &StoredPause) -> Vec<u8> {
    PauseForm {
        participant: pause.participant.to_string(),
        reason: pause.reason.clone(),
        actor: pause.actor.clone(),
        since: pause.since.0,
    }
    .encode_to_vec()
}

/// Reads back what [`encode_pause`] wrote.
pub fn decode_pause(bytes: &[u8]) -> Result<StoredPause, CodecError> {
    let form: PauseForm = decode("a pause", bytes)?;
    Ok(StoredPause {
        participant: ParticipantName::parse(&form.participant).map_err(invalid)?,
        reason: form.reason,
        actor: form.actor,
        since: Timestamp(form.since),
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn a_ticket_reads_back_as_it_was_written() {
        let ticket = LockTicket {
            ticket: 7,
            saga: samples::saga_id("a/b"),
            keys: vec![LockKey::parse("stock:1").unwrap(), LockKey::parse("stöck:2").unwrap()],
        };
        assert_eq!(decode_ticket(&encode_ticket(&ticket)).unwrap(), ticket);
    }

    #[test]
    fn a_definition_reads_back_as_it_was_written() {
        let definition = samples::definition("order", 3);
        assert_eq!(decode_definition(&encode_definition(&definition)).unwrap(), definition);
    }

    #[test]
    fn a_registration_reads_back_as_it_was_written() {
        let registration = StoredRegistration { registration_id: "r-1".into(), body: vec![0, 1, 255] };
        assert_eq!(decode_registration(&encode_registration(&registration)).unwrap(), registration);
    }
    #[test]
    fn a_pause_reads_back_as_it_was_written() {
        let pause = StoredPause {
            participant: ParticipantName::parse("stock").unwrap(),
            reason: "schema change".into(),
            actor: "mia".into(),
            since: Timestamp(-7),
        };
        assert_eq!(decode_pause(&encode_pause(&pause)).unwrap(), pause);
    }
}
