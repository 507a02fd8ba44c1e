//! Who is connected to the admin endpoint. There are at most so many, and one more takes the place of the one that has been quiet for
//! the longest: connections that ask nothing, or never end asking, keep no health check out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::http::Request;
use axum::response::Response;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// The places that there are.
pub(super) struct Places {
    max: usize,
    stop: CancellationToken,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    /// How many turns there were: each connection, and each answer, is one.
    turns: u64,
    taken: BTreeMap<u64, Taken>,
}

struct Taken {
    /// A request of it is being answered. It goes only when that is so of all.
    answers: bool,
    /// When it connected, or was last answered.
    turn: u64,
    leave: CancellationToken,
}

impl Inside {
    fn turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }
}

impl Places {
    /// So many; at least one. All have to leave at `stop`.
    pub(super) fn new(max: usize, stop: CancellationToken) -> Arc<Places> {
        Arc::new(Places {
            max: max.max(1),
            stop,
            inside: Mutex::default(),
        })
    }

    /// A place for one more connection. When all are taken, the connection that has been quiet for the longest is told to leave.
    pub(super) fn enter(self: &Arc<Places>) -> Place {
        let leave = self.stop.child_token();
        let mut inside = self.inside.lock();
        if inside.taken.len() >= self.max {
            let quiet = inside
                .taken
                .iter()
                .min_by_key(|(_, taken)| (taken.answers, taken.turn));
            let number = quiet.map(|(&number, _)| number);
            if let Some(gone) = number.and_then(|number| inside.taken.remove(&number)) {
                gone.leave.cancel();
            }
        }
        let number = inside.turn();
        let taken = Taken {
            answers: false,
            turn: number,
            leave: leave.clone(),
        };
        inside.taken.insert(number, taken);
        Place {
            places: Arc::clone(self),
            number,
            leave,
        }
    }
}

/// The place of one connection, free again when this is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    leave: CancellationToken,
}

impl Place {
    /// Cancelled when the connection has to make room, and at the end.
    pub(super) fn leave(&self) -> CancellationToken {
        self.leave.clone()
    }

    fn note(&self, answers: bool) {
        let mut inside = self.places.inside.lock();
        let turn = inside.turn();
        // One that was told to leave has no place any more.
        if let Some(taken) = inside.taken.get_mut(&self.number) {
            (taken.answers, taken.turn) = (answers, turn);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.inside.lock().taken.remove(&self.number);
    }
}

/// The pages for one connection, which notes when it is answered.
#[derive(Clone)]
pub(super) struct Pages {
    router: Router,
    place: Arc<Place>,
}

impl Pages {
    pub(super) fn new(router: Router, place: Arc<Place>) -> Pages {
        Pages { router, place }
    }
}

impl<B> Service<Request<B>> for Pages
where
    Router: Service<Request<B>, Response = Response, Error = Infallible>,
    <Router as Service<Request<B>>>::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.router.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let place = Arc::clone(&self.place);
        place.note(true);
        let answer = self.router.call(request);
        Box::pin(async move {
            let response = answer.await;
            // Whoever does not read its answer counts as quiet from here on.
            place.note(false);
            response
        })
    }
}

#[cfg(test)]
mod tests {
    //! Goal: who makes room is the one that has been quiet for the longest, one that is being answered only when all are. Method: few
    //! places, taken, answered and left in turn.
    use super::*;

    fn left(places: &[&Place]) -> Vec<bool> {
        places.iter().map(|place| place.leave.is_cancelled()).collect()
    }

    #[test]
    fn the_quietest_makes_room() {
        let places = Places::new(3, CancellationToken::new());
        let (first, second, third) = (places.enter(), places.enter(), places.enter());
        first.note(true);
        let fourth = places.enter();
        assert_eq!(
            left(&[&first, &second, &third, &fourth]),
            [false, true, false, false]
        );
        // What it has to say now concerns nobody.
        second.note(true);
        first.note(false);
        let fifth = places.enter();
        assert_eq!(
            left(&[&first, &third, &fourth, &fifth]),
            [false, true, false, false]
        );
        for busy in [&fifth, &first, &fourth] {
            busy.note(true);
        }
        let sixth = places.enter();
        assert_eq!(
            left(&[&fifth, &first, &fourth, &sixth]),
            [true, false, false, false]
        );
    }

    #[test]
    fn a_place_that_is_left_is_free() {
        let places = Places::new(2, CancellationToken::new());
        let (first, second) = (places.enter(), places.enter());
        drop(second);
        let third = places.enter();
        assert_eq!(left(&[&first, &third]), [false, false]);
        assert_eq!(places.inside.lock().taken.len(), 2);
        drop((first, third));
        assert!(places.inside.lock().taken.is_empty());
    }
}
