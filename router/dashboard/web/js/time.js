// Times and spans as people read them, in local time or UTC. No DOM; `now` is an argument.

const two = (number) => String(number).padStart(2, "0");
const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const UNITS = { s: 1, m: 60, h: 3600, d: 86_400 };

function parts(ms, utc) {
  const date = new Date(ms);
  return utc
    ? [date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate(), date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds(), date.getUTCMilliseconds(), date.getUTCDay()]
    : [date.getFullYear(), date.getMonth(), date.getDate(), date.getHours(), date.getMinutes(), date.getSeconds(), date.getMilliseconds(), date.getDay()];
}

/** `21:03:04.567` */
export function clock(ms, utc) {
  const [, , , hour, minute, second, milli] = parts(ms, utc);
  return `${two(hour)}:${two(minute)}:${two(second)}.${String(milli).padStart(3, "0")}`;
}

/** `21:03`, or with seconds `21:03:04`. */
export function shortClock(ms, utc, seconds = false) {
  const [, , , hour, minute, second] = parts(ms, utc);
  return `${two(hour)}:${two(minute)}${seconds ? `:${two(second)}` : ""}`;
}

/** `Sat 21 Nov 2026` */
export function day(ms, utc) {
  const [year, month, date, , , , , weekday] = parts(ms, utc);
  return `${DAYS[weekday]} ${date} ${MONTHS[month]} ${year}`;
}

/** `21 Nov 21:03:04`; the day is left out when it is today. */
export function moment(ms, utc, now) {
  const [year, month, date] = parts(ms, utc);
  const [thisYear, thisMonth, today] = parts(now, utc);
  const time = shortClock(ms, utc, true);
  if (year === thisYear && month === thisMonth && date === today) return time;
  return `${date} ${MONTHS[month]}${year === thisYear ? "" : ` ${year}`} ${time}`;
}

/** `2026-11-21T21:03:04.567890123` with all its digits and the offset, from RFC 3339 in UTC. */
export function exact(rfc, utc) {
  const ms = Date.parse(rfc);
  if (Number.isNaN(ms)) return rfc;
  const fraction = /\.(\d+)/.exec(rfc)?.[1] ?? "000";
  const [year, month, date, hour, minute, second] = parts(ms, utc);
  const whole = `${year}-${two(month + 1)}-${two(date)} ${two(hour)}:${two(minute)}:${two(second)}.${fraction}`;
  return `${whole} ${utc ? "UTC" : offset(ms)}`;
}

/** `+01:00` of the browser's zone at that time. */
export function offset(ms) {
  const minutes = -new Date(ms).getTimezoneOffset();
  const size = Math.abs(minutes);
  return `${minutes < 0 ? "-" : "+"}${two(Math.floor(size / 60))}:${two(size % 60)}`;
}

/** What a `datetime-local` input takes: `2026-11-21T21:03:04`. */
export function inputText(ms, utc) {
  const [year, month, date, hour, minute, second] = parts(ms, utc);
  return `${year}-${two(month + 1)}-${two(date)}T${two(hour)}:${two(minute)}:${two(second)}`;
}

/** Milliseconds of such an input, `NaN` when it is empty. */
export function inputTime(text, utc) {
  return text ? Date.parse(utc ? `${text}Z` : text) : NaN;
}

/** `3 s`, `12 min`, `5 h`, `3 d`: the largest unit that fits. */
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 2 * 86_400) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

/** `now`, `12 s ago`, `in 5 min`. */
export function relative(ms, now) {
  const away = ms - now;
  if (Math.abs(away) < 1500) return "now";
  return away < 0 ? `${span(-away)} ago` : `in ${span(away)}`;
}

/** Milliseconds of `90s`, `15m`, `2h`, `7d`; `null` for anything else. */
export function spanOf(text) {
  const match = /^(\d{1,6})([smhd])$/.exec(text ?? "");
  return match ? Number(match[1]) * UNITS[match[2]] * 1000 : null;
}

/** The same the other way round, in the largest unit that goes in evenly. */
export function spanText(ms) {
  const seconds = Math.max(1, Math.round(ms / 1000));
  const unit = ["d", "h", "m", "s"].find((name) => seconds % UNITS[name] === 0);
  return `${seconds / UNITS[unit]}${unit}`;
}

/** When a bound of a question is: RFC 3339, or so long before `now`. */
export function boundTime(text, now) {
  const before = spanOf(text);
  return before === null ? Date.parse(text) : now - before;
}
