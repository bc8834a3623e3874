// What a program in JavaScript expects of a broker, with MQTT.js.
//
// Usage: node mqttjs_story.mjs MODULE HOST PORT 3|5, with the folder of the package `mqtt`. Ends with 0 when
// everything held; else an assertion says what did not.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [folder, host, port, version] = process.argv.slice(2);
const mqtt = createRequire(folder + "/")("mqtt");
const isNew = version === "5";
const patience = 10_000;

class Client {
  static async open(clientId, { lasting = false, will } = {}) {
    const client = new Client();
    client.waiting = [];
    client.messages = [];
    client.mqtt = mqtt.connect({
      host,
      port: Number(port),
      clientId,
      clean: !lasting,
      protocolVersion: isNew ? 5 : 4,
      properties: isNew && lasting ? { sessionExpiryInterval: 3600 } : undefined,
      will,
      reconnectPeriod: 0,
    });
    client.mqtt.on("message", (topic, payload, packet) => {
      const message = { topic, text: payload.toString(), ...packet, payload: undefined };
      const taker = client.waiting.shift();
      if (taker) taker(message);
      else client.messages.push(message);
    });
    const connack = await new Promise((resolve, reject) => {
      client.mqtt.once("connect", resolve);
      client.mqtt.once("error", reject);
    });
    client.present = connack.sessionPresent;
    return client;
  }

  next() {
    if (this.messages.length > 0) return Promise.resolve(this.messages.shift());
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("no message in time")), patience);
      this.waiting.push((message) => {
        clearTimeout(timer);
        resolve(message);
      });
    });
  }

  async subscribe(topic, qos, more = {}) {
    const [granted] = await this.mqtt.subscribeAsync(topic, { qos, ...more });
    return granted.qos;
  }

  publish(topic, payload, qos, more = {}) {
    return this.mqtt.publishAsync(topic, payload, { qos, ...more });
  }

  end() {
    return this.mqtt.endAsync();
  }

  vanish() {
    return new Promise((resolve) => {
      this.mqtt.once("close", resolve);
      this.mqtt.stream.destroy();
    });
  }
}

async function everyQualityOfService() {
  const client = await Client.open("js-qos");
  for (const qos of [0, 1, 2]) {
    assert.equal(await client.subscribe(`js/${qos}`, qos), qos);
    await client.publish(`js/${qos}`, `message ${qos}`, qos);
    const message = await client.next();
    assert.deepEqual([message.text, message.qos, message.retain], [`message ${qos}`, qos, false]);
  }
  await client.publish("thinglog/logs/js/app", "durable", 2);
  await client.mqtt.unsubscribeAsync("js/0");
  await client.end();
}

async function retained() {
  const writer = await Client.open("js-writer");
  await writer.publish("js/retained", "kept", 1, { retain: true });
  const reader = await Client.open("js-reader");
  await reader.subscribe("js/#", 1);
  const message = await reader.next();
  assert.deepEqual([message.text, message.retain], ["kept", true]);
  await writer.publish("js/retained", "", 1, { retain: true });
  assert.equal((await reader.next()).text, "");
  await reader.end();
  await writer.end();
}

async function wills() {
  const watcher = await Client.open("js-watcher");
  await watcher.subscribe("js/will", 1);
  const will = (payload) => ({ topic: "js/will", payload: Buffer.from(payload), qos: 1, retain: false });
  await (await Client.open("js-polite", { will: will("unsent") })).end();
  await (await Client.open("js-mortal", { will: will("gone") })).vanish();
  assert.equal((await watcher.next()).text, "gone");
  await watcher.end();
}

async function sessions() {
  let client = await Client.open("js-session", { lasting: true });
  assert.equal(client.present, false);
  await client.subscribe("js/session", 2);
  await client.end();
  const writer = await Client.open("js-writer");
  for (let n = 0; n < 6; n++) await writer.publish("js/session", String(n), 2);
  client = await Client.open("js-session", { lasting: true });
  assert.equal(client.present, true);
  for (let n = 0; n < 6; n++) {
    const message = await client.next();
    assert.deepEqual([message.text, message.qos], [String(n), 2]);
  }
  await client.end();
  await (await Client.open("js-session")).end();
  await writer.end();
}

async function sharedSubscriptions() {
  const members = [await Client.open("js-member-0"), await Client.open("js-member-1")];
  for (const member of members) await member.subscribe("$share/js/js/shared", 1);
  const writer = await Client.open("js-writer");
  const got = [];
  const all = new Promise((resolve) => {
    for (const member of members) {
      member.mqtt.on("message", (_topic, payload) => {
        got.push(Number(payload.toString()));
        if (got.length === 20) resolve();
      });
    }
  });
  for (let n = 0; n < 20; n++) await writer.publish("js/shared", String(n), 1);
  await all;
  for (const client of [...members, writer]) await client.end();
  assert.deepEqual(got.sort((a, b) => a - b), [...Array(20).keys()]);
}

async function properties() {
  const client = await Client.open("js-properties");
  await client.subscribe("js/properties", 1, { rap: true, properties: { subscriptionIdentifier: 7 } });
  const sent = {
    userProperties: { b: ["2", "3"], a: "1" },
    responseTopic: "js/answer",
    correlationData: Buffer.from([0, 255]),
    contentType: "text/plain",
  };
  await client.publish("js/properties", "x", 1, {
    properties: { ...sent, messageExpiryInterval: 60 },
  });
  const { properties } = await client.next();
  for (const [name, value] of Object.entries(sent)) {
    const got = name === "userProperties" ? { ...properties[name] } : properties[name];
    assert.deepEqual(got, value, name);
  }
  assert.equal(properties.subscriptionIdentifier, 7);
  assert.ok(properties.messageExpiryInterval > 0 && properties.messageExpiryInterval <= 60);
  await client.end();
}

await everyQualityOfService();
await retained();
await wills();
await sessions();
await sharedSubscriptions();
if (isNew) await properties();
