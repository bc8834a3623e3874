// Who is signed in, and what they may do. The router decides; this only hides what it would refuse.

import { call } from "./api.js";

/** @typedef {{name: string | null, role: string, groups: string[] | null, sign_in: boolean}} Session */

/** @returns {Promise<Session>} */
export const current = () => call("session");

/** @returns {Promise<Session>} of a name and password, or a token */
export const signIn = (proof) => call("session", {}, { method: "POST", body: proof });

export const signOut = () => call("session", {}, { method: "DELETE" });

/** Whether they may look and change at all. */
export const isOperator = (session) => session?.role === "admin" || session?.role === "operator";

/** Whether the whole fleet is theirs. */
export const isUnlimited = (session) => isOperator(session) && !session.groups?.length;

/** What they may see, in words. */
export function scope(session) {
  if (!isOperator(session)) return "may see nothing here";
  return isUnlimited(session) ? "all of the fleet" : `groups ${session.groups.join(", ")}`;
}
