//! Which things are in which groups.

use serde_json::{Value, json};

use super::error::Error;
use super::groups::{answer, entry, seen};
use super::input::{needed, old_name};
use super::{Answer, Call, arn, things};
use crate::registry::{Change, View};

/// Most groups that one request adds to or removes from.
const MOST: usize = 100;

/// Thing and group of a request.
fn both(call: &mut Call<'_>) -> Result<(String, String), Error> {
    let input = &mut call.input;
    let group = arn::name(
        input.text("thingGroupName")?,
        input.text("thingGroupArn")?,
        "thinggroup",
    )?;
    let thing = arn::name(input.text("thingName")?, input.text("thingArn")?, "thing")?;
    Ok((thing, group))
}

fn must_exist(view: &View<'_>, thing: &str) -> Result<(), Error> {
    match view.device_exists(thing) {
        true => Ok(()),
        false => Err(Error::not_found("thing", thing)),
    }
}

/// AddThingToThingGroup. `overrideDynamicGroups` has nothing to do: dynamic groups do not count for how
/// many a thing may be in.
pub(super) async fn add(mut call: Call<'_>) -> Answer {
    let (thing, group) = both(&mut call)?;
    call.input.flag("overrideDynamicGroups")?;
    let call = call.ended()?;
    call.fleet.read(|view| must_exist(&view, &thing))??;
    join(&call, thing, group).await?;
    Ok(Value::Null)
}

/// RemoveThingFromThingGroup.
pub(super) async fn remove(mut call: Call<'_>) -> Answer {
    let (thing, group) = both(&mut call)?;
    let call = call.ended()?;
    call.fleet.read(|view| must_exist(&view, &thing))??;
    leave(&call, thing, group).await?;
    Ok(Value::Null)
}

/// UpdateThingGroupsForThing: out of the one, then into the other, each by itself.
pub(super) async fn update(mut call: Call<'_>) -> Answer {
    let thing = needed(call.input.text("thingName")?, "thingName")?;
    let thing = old_name(&thing, "thing")?;
    let adds = call.input.texts("thingGroupsToAdd")?;
    let removes = call.input.texts("thingGroupsToRemove")?;
    call.input.flag("overrideDynamicGroups")?;
    let call = call.ended()?;
    if adds.len() + removes.len() > MOST {
        return Err(Error::invalid(format!("more than {MOST} groups")));
    }
    if let Some(both) = adds.iter().find(|group| removes.contains(group)) {
        return Err(Error::invalid(format!(
            "thing group {both:?} is to be added and removed"
        )));
    }
    call.fleet.read(|view| {
        must_exist(&view, &thing)?;
        let mut all = adds.iter().chain(&removes);
        match all.find(|group| !view.group_exists(group)) {
            Some(missing) => Err(Error::not_found("thing group", missing)),
            None => Ok(()),
        }
    })??;
    for group in removes {
        leave(&call, thing.clone(), group).await?;
    }
    for group in adds {
        join(&call, thing.clone(), group).await?;
    }
    Ok(Value::Null)
}

async fn join(call: &Call<'_>, device: String, group: String) -> Result<(), Error> {
    let change = Change::Join { group, device };
    let joined = call.fleet.change(change, call.caller).await;
    joined
        .map(drop)
        .map_err(|refusal| Error::from(refusal).without_limit())
}

async fn leave(call: &Call<'_>, device: String, group: String) -> Result<(), Error> {
    let change = Change::Leave { group, device };
    let left = call.fleet.change(change, call.caller).await;
    left.map(drop).map_err(Error::from)
}

/// ListThingsInThingGroup.
pub(super) fn things(mut call: Call<'_>, group: &str) -> Answer {
    let group = old_name(group, "thing group")?;
    let recursive = call.input.query_flag("recursive")?.unwrap_or(false);
    let page = call.input.page()?;
    let call = call.ended()?;
    call.fleet.read(|view| {
        seen(&call, &view, &group)?;
        let fleet = view.fleet();
        let names: Vec<String> = match recursive {
            true => fleet.members(&group),
            false => fleet
                .direct_members(&group)
                .into_iter()
                .map(str::to_owned)
                .collect(),
        };
        let entries = names
            .into_iter()
            .map(|name| (name.clone(), Value::from(name)));
        let (things, next) = page.of(entries);
        Ok(answer("things", json!(things), next))
    })?
}

/// ListThingGroupsForThing: those it is in itself.
pub(super) fn groups(mut call: Call<'_>, thing: &str) -> Answer {
    let thing = old_name(thing, "thing")?;
    let page = call.input.page()?;
    let call = call.ended()?;
    call.fleet.read(|view| {
        things::must_see(&call, &view, &thing)?;
        let names = view.fleet().direct_groups(&thing).into_iter();
        let names = names.filter(|name| call.caller.sees_group(&view, name));
        let (groups, next) = page.of(names.map(|name| {
            let group = entry(&name);
            (name, group)
        }));
        Ok(answer("thingGroups", json!(groups), next))
    })?
}
