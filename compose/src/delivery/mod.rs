//! `thinglog route`, `dlq`, `tap` and `top`: destinations as operators run them. All but `route` go over
//! the router's HTTP interface.

pub(crate) mod cli;
mod dlq;
mod route;
mod tap;
mod top;

pub(crate) use dlq::dlq;
pub(crate) use route::route;
pub(crate) use tap::tap;
pub(crate) use top::top;
