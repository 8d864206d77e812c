//! What the shop's services offer: each action, how it is undone, and what it does to the books.

/// How an action changes the books of its participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trade {
    /// Takes an amount out of a balance; refused when there is not enough.
    Take(Purse),
    /// Looks whether an amount could be taken, and takes nothing.
    Look(Purse),
    /// Puts an amount into a balance.
    Give {
        /// The input's field that names the balance.
        account: &'static str,
        /// The input's field for how much.
        amount: &'static str,
    },
    /// Remembers that it was asked.
    Record,
}

/// A balance that can run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purse {
    /// The input's field that names the balance.
    pub account: &'static str,
    /// The input's field for how much.
    pub amount: &'static str,
    /// Code of the refusal when there is not enough.
    pub refusal: &'static str,
    /// What there is not enough of, for people.
    pub thing: &'static str,
}

/// One action a participant offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Its name: what follows the dot in a definition's `call`.
    pub action: &'static str,
    /// The compensation that takes it back; `None` when it cannot be taken back.
    pub undo: Option<&'static str>,
    /// The probe with a name of its own, if any; every action can be asked about by its own name.
    pub probe: Option<&'static str>,
    /// What it does.
    pub trade: Trade,
    /// The answer's field for the id of what was made; `None` when nothing with an id is made.
    pub id_field: Option<&'static str>,
}

const fn offer(action: &'static str, trade: Trade) -> Offer {
    Offer { action, undo: None, probe: None, trade, id_field: None }
}

impl Offer {
    const fn undone_by(self, undo: &'static str) -> Self {
        Self { undo: Some(undo), ..self }
    }

    const fn found_by(self, probe: &'static str) -> Self {
        Self { probe: Some(probe), ..self }
    }

    const fn answering(self, id_field: &'static str) -> Self {
        Self { id_field: Some(id_field), ..self }
    }
}

const STOCK: Purse =
    Purse { account: "item_id", amount: "amount", refusal: "OUT_OF_STOCK", thing: "stock of item" };
const POINTS: Purse =
    Purse { account: "user_id", amount: "amount", refusal: "NOT_ENOUGH_POINTS", thing: "points of user" };
const CARD: Purse =
    Purse { account: "card", amount: "cents", refusal: "CARD_DECLINED", thing: "limit of card" };
const ACCOUNT: Purse =
    Purse { account: "account", amount: "cents", refusal: "NO_FUNDS", thing: "money on account" };

/// The participants of the order saga.
pub const ORDER_PARTICIPANTS: [&str; 5] = ["stock", "point", "order", "cart", "data_platform"];

/// Everybody who can be started, with what they offer: the order saga's participants first.
pub const CATALOGUE: [(&str, &[Offer]); 12] = [
    ("stock", &[offer("deduct", Trade::Take(STOCK)).undone_by("restore")]),
    ("point", &[offer("use", Trade::Take(POINTS)).undone_by("charge")]),
    ("order", &[offer("create", Trade::Record).undone_by("cancel").answering("order_id")]),
    ("cart", &[offer("clear", Trade::Record)]),
    ("data_platform", &[offer("send", Trade::Record)]),
    ("flights", &[offer("reserve", Trade::Record).undone_by("cancel").answering("code")]),
    ("hotels", &[offer("reserve", Trade::Record).undone_by("cancel").answering("code")]),
    ("cars", &[offer("reserve", Trade::Record).undone_by("cancel").answering("code")]),
    ("payments", &[offer("charge", Trade::Take(CARD)).found_by("find").answering("receipt")]),
    ("miles", &[offer("add", Trade::Record)]),
    ("mail", &[offer("send", Trade::Record), offer("transfer_done", Trade::Record)]),
    (
        "accounts",
        &[
            offer("check", Trade::Look(Purse { account: "from", ..ACCOUNT })),
            offer("debit", Trade::Take(ACCOUNT)).undone_by("refund"),
            offer("credit", Trade::Give { account: "account", amount: "cents" }).answering("booking"),
        ],
    ),
];

/// What `participant` offers; `None` when nobody of that name can be started.
#[must_use]
pub fn offers(participant: &str) -> Option<&'static [Offer]> {
    CATALOGUE.iter().find(|(name, _)| *name == participant).map(|(_, offers)| *offers)
}

/// The names a participant registers: its actions, their compensations and probes.
pub fn action_names(offers: &'static [Offer]) -> impl Iterator<Item = &'static str> {
    offers.iter().flat_map(|offer| [Some(offer.action), offer.undo, offer.probe]).flatten()
}
