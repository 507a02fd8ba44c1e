//! What a web shop sends in an afternoon, from a seed: orders on their way through payment, warehouse and delivery,
//! carts, stock and prices. A few customers and articles are much more popular than the rest, most events are small,
//! and the events of one order come in their order.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::limits::{EVENT_BYTES_MAX, ORDERS_OPEN_MAX};
use super::rng::Rng;

/// 2026-03-02T08:00:00Z, when the generated day starts, in milliseconds since 1970.
const DAY_STARTS_MS: u64 = 1_772_438_400_000;
const CUSTOMERS: u64 = 20_000;
const ARTICLES: u64 = 3_000;
const ITEMS_MAX: u64 = 22;

const CITIES: &[&str] = &[
    "Leipzig", "Lyon", "Porto", "Gdansk", "Aarhus", "Graz", "Ghent", "Turku", "Brno", "Cork",
];
const CARRIERS: &[&str] = &["northpost", "quickline", "parcelo"];
const METHODS: &[&str] = &["card", "card", "card", "transfer", "wallet"];
const CHANNELS: &[&str] = &["web", "web", "app", "app", "store"];
const WORDS: &[&str] = &[
    "please",
    "leave",
    "the",
    "parcel",
    "with",
    "neighbour",
    "at",
    "number",
    "seven",
    "ring",
    "twice",
    "behind",
    "green",
    "door",
    "gift",
    "wrap",
    "it",
    "blue",
    "card",
    "says",
    "happy",
    "birthday",
    "no",
    "plastic",
];

/// One message for the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// The subject it is published to.
    pub(crate) subject: String,
    /// The id by which the hub recognises a repetition.
    pub(crate) msg_id: String,
    /// The body.
    pub(crate) payload: Bytes,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Placed,
    Paid,
    Packed,
    Shipped,
    Delivered,
}

#[derive(Debug)]
struct Order {
    id: u64,
    customer: u64,
    total_cents: u64,
    stage: Stage,
}

/// The events of one seed, one after the other.
#[derive(Debug)]
pub(crate) struct Events {
    rng: Rng,
    seed: u64,
    number: u64,
    count: u64,
    clock_ms: u64,
    orders: u64,
    open: VecDeque<Order>,
}

impl Events {
    /// `count` events. The same seed gives the same events, and a longer run starts with those of a shorter one.
    pub(crate) fn new(seed: u64, count: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            seed,
            number: 0,
            count,
            clock_ms: DAY_STARTS_MS,
            orders: 0,
            open: VecDeque::new(),
        }
    }

    fn place_order(&mut self) -> (&'static str, Value) {
        self.orders += 1;
        // A household buys a few things, a business many.
        let count = if self.rng.chance(4) {
            self.rng.within(8, ITEMS_MAX)
        } else {
            1 + self.rng.skewed(8)
        };
        let mut total_cents = 0;
        let mut items = Vec::new();
        for _ in 0..count {
            let quantity = 1 + self.rng.skewed(4);
            let unit_cents = 199 + self.rng.skewed(40_000);
            total_cents += quantity * unit_cents;
            items.push(json!({
                "sku": self.article(),
                "title": format!("{} {}", self.rng.pick(WORDS), self.rng.pick(WORDS)),
                "quantity": quantity,
                "unit_cents": unit_cents,
                "tax_percent": if self.rng.chance(80) { 19 } else { 7 },
            }));
        }
        let customer = self.rng.skewed(CUSTOMERS);
        let note_words = if self.rng.chance(25) {
            self.rng.within(3, 60)
        } else {
            0
        };
        let note: Vec<&str> = (0..note_words).map(|_| self.rng.pick(WORDS)).collect();
        let order = Order {
            id: self.orders,
            customer,
            total_cents,
            stage: Stage::Placed,
        };
        let body = json!({
            "order": order_id(order.id),
            "customer": customer_id(customer),
            "channel": self.rng.pick(CHANNELS),
            "currency": "EUR",
            "total_cents": total_cents,
            "items": items,
            "ship_to": {
                "city": self.rng.pick(CITIES),
                "postcode": format!("{:05}", self.rng.below(99_999)),
                "street": format!("{} street {}", self.rng.pick(WORDS), self.rng.within(1, 240)),
            },
            "note": note.join(" "),
        });
        self.open.push_back(order);
        ("shop.orders.created", body)
    }

    /// Moves one of the older open orders a step on.
    fn advance_order(&mut self) -> (&'static str, Value) {
        let at = usize::try_from(self.rng.skewed(self.open.len() as u64)).unwrap_or(0);
        let Some(mut order) = self.open.remove(at) else {
            return self.place_order();
        };
        let mut body = json!({
            "order": order_id(order.id),
            "customer": customer_id(order.customer),
            "total_cents": order.total_cents,
            "currency": "EUR",
        });
        let (subject, next, more) = match order.stage {
            Stage::Placed if self.rng.chance(6) => (
                "shop.payments.declined",
                Some(Stage::Placed),
                json!({ "method": self.rng.pick(METHODS), "reason": "issuer refused", "attempt": self.rng.within(1, 3) }),
            ),
            Stage::Placed if self.rng.chance(4) => (
                "shop.orders.cancelled",
                None,
                json!({ "by": if self.rng.chance(70) { "customer" } else { "shop" }, "refund_cents": 0 }),
            ),
            Stage::Placed => (
                "shop.payments.captured",
                Some(Stage::Paid),
                json!({ "method": self.rng.pick(METHODS), "authorisation": format!("{:016x}", self.rng.next()) }),
            ),
            Stage::Paid => (
                "shop.orders.packed",
                Some(Stage::Packed),
                json!({ "warehouse": format!("wh-{}", self.rng.within(1, 4)), "parcels": 1 + self.rng.skewed(3) }),
            ),
            Stage::Packed => (
                "shop.shipments.dispatched",
                Some(Stage::Shipped),
                json!({ "carrier": self.rng.pick(CARRIERS), "tracking": format!("{:012X}", self.rng.next() >> 16) }),
            ),
            Stage::Shipped => (
                "shop.shipments.delivered",
                Some(Stage::Delivered),
                json!({ "signed_by": self.rng.pick(&["recipient", "neighbour", "locker"]), "city": self.rng.pick(CITIES) }),
            ),
            Stage::Delivered if self.rng.chance(20) => (
                "shop.orders.returned",
                None,
                json!({ "reason": self.rng.pick(&["too small", "broken", "not as shown", "late"]), "refund_cents": order.total_cents }),
            ),
            Stage::Delivered => (
                "shop.reviews.posted",
                None,
                json!({ "stars": 5 - self.rng.skewed(5), "sku": self.article(), "text": self.text(40) }),
            ),
        };
        if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
            body.extend(more);
        }
        if let Some(stage) = next {
            order.stage = stage;
            self.open.push_back(order);
        }
        (subject, body)
    }

    fn side_event(&mut self) -> (&'static str, Value) {
        match self.rng.below(3) {
            0 => (
                "shop.carts.item_added",
                json!({
                    "cart": format!("cart-{:08x}", self.rng.next() >> 32),
                    "customer": customer_id(self.rng.skewed(CUSTOMERS)),
                    "sku": self.article(),
                    "quantity": 1 + self.rng.skewed(3),
                    "referrer": self.rng.pick(&["search", "newsletter", "home", "recommendation"]),
                }),
            ),
            1 => (
                "shop.stock.adjusted",
                json!({
                    "sku": self.article(),
                    "warehouse": format!("wh-{}", self.rng.within(1, 4)),
                    "on_hand": self.rng.below(2_000),
                    "reserved": self.rng.below(200),
                    "cause": self.rng.pick(&["count", "receipt", "damage", "transfer"]),
                }),
            ),
            _ => (
                "shop.catalog.price_changed",
                json!({
                    "sku": self.article(),
                    "old_cents": self.rng.within(199, 40_000),
                    "new_cents": self.rng.within(199, 40_000),
                    "currency": "EUR",
                    "campaign": self.text(4),
                }),
            ),
        }
    }

    fn article(&mut self) -> String {
        format!("SKU-{:05}", self.rng.skewed(ARTICLES))
    }

    fn text(&mut self, words_max: u64) -> String {
        let words: Vec<&str> = (0..self.rng.within(1, words_max))
            .map(|_| self.rng.pick(WORDS))
            .collect();
        words.join(" ")
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if self.number == self.count {
            return None;
        }
        self.number += 1;
        self.clock_ms += self.rng.skewed(4_000);
        let full = self.open.len() >= ORDERS_OPEN_MAX;
        let (subject, data) = match self.rng.below(100) {
            0..15 if !full => self.place_order(),
            0..80 => self.advance_order(),
            _ => self.side_event(),
        };
        let msg_id = format!("shop-{:x}-{}", self.seed, self.number);
        let document = json!({
            "id": msg_id,
            "type": subject,
            "version": 1,
            "time": instant(self.clock_ms),
            "source": format!("shop-{}.example", self.rng.pick(&["eu-1", "eu-2", "eu-3"])),
            "trace": format!("{:016x}{:016x}", self.rng.next(), self.rng.next()),
            "data": data,
        });
        let text = document.to_string();
        debug_assert!(text.len() <= EVENT_BYTES_MAX, "{} bytes", text.len());
        Some(Event {
            subject: subject.to_owned(),
            msg_id,
            payload: Bytes::from(text),
        })
    }
}

fn order_id(number: u64) -> String {
    format!("O-{number:08}")
}

fn customer_id(number: u64) -> String {
    format!("C-{number:06}")
}

/// A time as RFC 3339 writes it.
fn instant(ms: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    // Goal: the same seed gives the same, realistic events. Method: generate and count.
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::limits::{EVENT_BYTES_MIN, EVENTS_DEFAULT};
    use super::*;

    #[test]
    fn a_seed_is_a_file() {
        let events: Vec<Event> = Events::new(7, 3_000).collect();
        assert_eq!(events, Events::new(7, 3_000).collect::<Vec<_>>());
        assert_eq!(events[..500], Events::new(7, 500).collect::<Vec<_>>());
        assert_ne!(events[..500], Events::new(8, 500).collect::<Vec<_>>());
    }

    #[test]
    fn events_have_the_promised_sizes_distinct_ids_and_several_subjects() {
        let events: Vec<Event> = Events::new(1, EVENTS_DEFAULT).collect();
        assert_eq!(events.len() as u64, EVENTS_DEFAULT);
        let ids: BTreeSet<&str> = events.iter().map(|event| event.msg_id.as_str()).collect();
        assert_eq!(ids.len(), events.len());
        let sizes: Vec<usize> = events.iter().map(|event| event.payload.len()).collect();
        let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        assert!(
            *least >= EVENT_BYTES_MIN && *most <= EVENT_BYTES_MAX,
            "{least} to {most}"
        );
        assert!(*most > 2_000, "the tail of large events is missing: {most}");
        let subjects: BTreeSet<&str> = events.iter().map(|event| event.subject.as_str()).collect();
        assert!(subjects.len() >= 10, "{subjects:?}");
    }

    #[test]
    fn an_order_is_created_before_anything_happens_to_it_and_few_customers_order_much() {
        let mut created = BTreeSet::new();
        let mut customers: BTreeMap<String, u32> = BTreeMap::new();
        for event in Events::new(3, 20_000) {
            let body: Value = serde_json::from_slice(&event.payload).unwrap();
            let Some(order) = body["data"]["order"].as_str().map(str::to_owned) else {
                continue;
            };
            if event.subject == "shop.orders.created" {
                assert!(created.insert(order));
                *customers
                    .entry(body["data"]["customer"].as_str().unwrap().to_owned())
                    .or_default() += 1;
            } else {
                assert!(created.contains(&order), "{order} before its creation");
            }
        }
        let mut counts: Vec<u32> = customers.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let all: u32 = counts.iter().sum();
        let top: u32 = counts.iter().take(counts.len() / 10).sum();
        assert!(top * 5 > all, "the top tenth has {top} of {all}");
    }
}
