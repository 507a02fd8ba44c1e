//! Waiting for conditions. Tests never sleep: a sleep is either too short on a busy machine or too long on a fast one.

use std::fmt::Display;
use std::future::Future;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const POLL_FIRST: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(100);

/// `FANIN_TEST_PATIENCE` (a factor, default 1, between 0.1 and 100) applied to `time`: slow machines set it higher.
pub fn patience(time: Duration) -> Duration {
    static FACTOR: OnceLock<f64> = OnceLock::new();
    let factor = FACTOR.get_or_init(|| parse_factor(std::env::var("FANIN_TEST_PATIENCE").ok().as_deref()));
    time.mul_f64(*factor)
}

fn parse_factor(text: Option<&str>) -> f64 {
    let factor = text
        .and_then(|text| text.trim().parse::<f64>().ok())
        .filter(|factor| factor.is_finite());
    factor.unwrap_or(1.0).clamp(0.1, 100.0)
}

/// What a condition answers: `true`, `Some` or `Ok` when it holds.
pub trait Condition {
    /// What holds then.
    type Value;

    /// The value, or why it does not hold yet.
    fn holds(self) -> Result<Self::Value, String>;
}

impl Condition for bool {
    type Value = ();

    fn holds(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".to_owned()) }
    }
}

impl<T> Condition for Option<T> {
    type Value = T;

    fn holds(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing yet".to_owned())
    }
}

impl<T, E: Display> Condition for Result<T, E> {
    type Value = T;

    fn holds(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

/// Asks again and again until the condition holds, for `time` times the patience.
///
/// The error says what was awaited and what the condition answered last.
pub async fn until<C, F>(time: Duration, what: &str, mut ask: impl FnMut() -> F) -> Result<C::Value, String>
where
    C: Condition,
    F: Future<Output = C>,
{
    let time = patience(time);
    let start = Instant::now();
    let mut pause = POLL_FIRST;
    loop {
        let last = match ask().await.holds() {
            Ok(value) => return Ok(value),
            Err(last) => last,
        };
        if start.elapsed() >= time {
            return Err(format!(
                "gave up after {:.1} s waiting for {what}: {last}",
                time.as_secs_f64()
            ));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_MAX);
    }
}

/// [`until`] for tests.
///
/// # Panics
/// When the condition does not come to hold in time.
pub async fn eventually<C, F>(time: Duration, what: &str, ask: impl FnMut() -> F) -> C::Value
where
    C: Condition,
    F: Future<Output = C>,
{
    match until(time, what, ask).await {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    // Goal: a wait ends as soon as the condition holds, and tells the last answer when it does not.
    // Method: conditions that count how often they were asked.
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_wait_ends_with_the_condition_or_with_its_last_answer() {
        let asked = Cell::new(0);
        let third = || async {
            asked.set(asked.get() + 1);
            (asked.get() == 3).then_some("yes")
        };
        assert_eq!(eventually(Duration::from_secs(5), "third", third).await, "yes");
        assert_eq!(asked.get(), 3);

        let error = until(Duration::ZERO, "it", || async { Err::<(), _>("hub is away") })
            .await
            .unwrap_err();
        assert!(
            error.contains("waiting for it") && error.contains("hub is away"),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_patience_is_one() {
        assert_eq!(parse_factor(Some("2.5")), 2.5);
        assert_eq!(parse_factor(Some("much")), 1.0);
        assert_eq!(parse_factor(Some("NaN")), 1.0);
        assert_eq!(parse_factor(Some("0")), 0.1);
        assert_eq!(parse_factor(None), 1.0);
    }
}
