//! What the shop's services offer: each action, how it is undone, and what it does to the books.

/// How an action changes the books of its participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trade {
    /// Takes `amount` out of a balance; refused with `refusal` when there is not enough.
    Take {
        /// The input's field that names the balance.
        account: &'static str,
        /// Code of the refusal.
        refusal: &'static str,
        /// What there is not enough of, for people.
        thing: &'static str,
    },
    /// Puts `amount` into a balance.
    Give {
        /// The input's field that names the balance.
        account: &'static str,
    },
    /// Makes a record with an id of its own and answers with the id.
    Open {
        /// The answer's field for the id.
        id_field: &'static str,
    },
    /// Remembers that it was told.
    Note,
}

/// One action a participant offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Its name: what follows the dot in a definition's `call`.
    pub action: &'static str,
    /// The compensation that takes it back; `None` when it cannot be taken back.
    pub undo: Option<&'static str>,
    /// What it does.
    pub trade: Trade,
}

const fn offer(action: &'static str, undo: Option<&'static str>, trade: Trade) -> Offer {
    Offer { action, undo, trade }
}

/// The participants of the order saga.
pub const ORDER_PARTICIPANTS: [&str; 5] = ["stock", "point", "order", "cart", "data_platform"];

/// Everybody who can be started, with what they offer.
pub const CATALOGUE: [(&str, &[Offer]); 5] = [
    (
        "stock",
        &[offer(
            "deduct",
            Some("restore"),
            Trade::Take { account: "item_id", refusal: "OUT_OF_STOCK", thing: "stock of item" },
        )],
    ),
    (
        "point",
        &[offer(
            "use",
            Some("charge"),
            Trade::Take { account: "user_id", refusal: "NOT_ENOUGH_POINTS", thing: "points of user" },
        )],
    ),
    ("order", &[offer("create", Some("cancel"), Trade::Open { id_field: "order_id" })]),
    ("cart", &[offer("clear", None, Trade::Note)]),
    ("data_platform", &[offer("send", None, Trade::Note)]),
];

/// What `participant` offers; `None` when nobody of that name can be started.
#[must_use]
pub fn offers(participant: &str) -> Option<&'static [Offer]> {
    CATALOGUE.iter().find(|(name, _)| *name == participant).map(|(_, offers)| *offers)
}

/// The names a participant registers: its actions and their compensations.
pub fn action_names(offers: &'static [Offer]) -> impl Iterator<Item = &'static str> {
    offers.iter().flat_map(|offer| std::iter::once(offer.action).chain(offer.undo))
}
