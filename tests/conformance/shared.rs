//! Shared subscriptions: section 4.8.2.

use crate::Broker;
use crate::raw::{self, V5, props};

#[test]
fn a_shared_subscription_with_no_local_is_a_protocol_error() {
    let broker = Broker::start();
    let bytes = raw::subscribe(V5, 1, &props(), &[(b"$share/group/t", 1 | 4)]);
    assert_eq!(broker.client(V5, "c").refused(&bytes), 0x82);
}
