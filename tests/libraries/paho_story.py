"""What a program in Python expects of a broker, with Eclipse Paho's client.

Usage: paho_story.py HOST PORT 3|5. Ends with 0 when everything held; else an assertion says what did not.
"""

import queue
import socket
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

HOST, PORT, VERSION = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
PROTOCOL = {3: mqtt.MQTTv311, 5: mqtt.MQTTv5}[VERSION]
PATIENCE = 10


def of_connect(**values):
    properties = Properties(PacketTypes.CONNECT)
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


class Client:
    """A connected client; what comes waits in `messages`."""

    def __init__(self, name, lasting=False, will=None):
        self.messages, self.events = queue.Queue(), queue.Queue()
        options = {} if VERSION == 5 else {"clean_session": not lasting}
        self.mqtt = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=PROTOCOL, **options
        )
        self.mqtt.on_message = lambda _client, _data, message: self.messages.put(message)
        self.mqtt.on_connect = lambda _c, _d, flags, reason, _p: self.events.put((flags, reason))
        self.mqtt.on_subscribe = lambda _c, _d, _id, reasons, _p: self.events.put(reasons)
        self.mqtt.on_unsubscribe = lambda _c, _d, _id, reasons, _p: self.events.put(reasons)
        if will:
            self.mqtt.will_set(*will)
        more = {}
        if VERSION == 5:
            more = {
                "clean_start": not lasting,
                "properties": of_connect(SessionExpiryInterval=3600 if lasting else 0),
            }
        self.mqtt.connect(HOST, PORT, **more)
        self.mqtt.loop_start()
        flags, reason = self.event()
        assert reason == 0, reason
        self.present = flags.session_present

    def event(self):
        return self.events.get(timeout=PATIENCE)

    def subscribe(self, topic, qos):
        self.mqtt.subscribe(topic, qos)
        return self.event()[0].value

    def publish(self, topic, payload, qos, **more):
        self.mqtt.publish(topic, payload, qos, **more).wait_for_publish(PATIENCE)

    def next(self):
        return self.messages.get(timeout=PATIENCE)

    def end(self):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def vanish(self):
        """Without DISCONNECT."""
        self.mqtt.on_socket_close = None
        self.mqtt.socket().shutdown(socket.SHUT_RDWR)
        self.mqtt.loop_stop()


def every_quality_of_service():
    client = Client("paho-qos")
    for qos in (0, 1, 2):
        assert client.subscribe(f"paho/{qos}", qos) == qos
        client.publish(f"paho/{qos}", f"message {qos}", qos)
        message = client.next()
        assert (message.payload.decode(), message.qos) == (f"message {qos}", qos)
        assert not message.retain
    client.publish("thinglog/logs/paho/app", "durable", 2)
    client.mqtt.unsubscribe("paho/0")
    client.event()
    client.end()


def retained():
    client = Client("paho-writer")
    client.publish("paho/retained", "kept", 1, retain=True)
    reader = Client("paho-reader")
    reader.subscribe("paho/#", 1)
    message = reader.next()
    assert (message.payload, message.retain) == (b"kept", True)
    client.publish("paho/retained", "", 1, retain=True)
    assert reader.next().payload == b""
    reader.end()
    client.end()


def wills():
    watcher = Client("paho-watcher")
    watcher.subscribe("paho/will", 1)
    Client("paho-polite", will=("paho/will", "unsent", 1)).end()
    Client("paho-mortal", will=("paho/will", "gone", 1)).vanish()
    assert watcher.next().payload == b"gone"
    watcher.end()


def sessions():
    client = Client("paho-session", lasting=True)
    assert not client.present
    client.subscribe("paho/session", 2)
    client.end()
    writer = Client("paho-writer")
    for n in range(6):
        writer.publish("paho/session", str(n), 2)
    client = Client("paho-session", lasting=True)
    assert client.present
    got = [client.next() for _ in range(6)]
    assert [message.payload.decode() for message in got] == [str(n) for n in range(6)]
    assert all(message.qos == 2 for message in got)
    client.end()
    Client("paho-session").end()
    writer.end()


def shared_subscriptions():
    members = [Client(f"paho-member-{n}") for n in range(2)]
    for member in members:
        member.subscribe("$share/paho/paho/shared", 1)
    writer = Client("paho-writer")
    for n in range(20):
        writer.publish("paho/shared", str(n), 1)
    writer.publish("paho/other", "x", 1)
    got = []
    while len(got) < 20:
        for member in members:
            try:
                got.append(int(member.messages.get(timeout=0.05).payload))
            except queue.Empty:
                pass
    assert sorted(got) == list(range(20)), got
    for client in (*members, writer):
        client.end()
    assert all(member.messages.empty() for member in members)


def properties():
    client = Client("paho-properties")
    client.mqtt.subscribe("paho/properties", options=SubscribeOptions(qos=1, retainAsPublished=True))
    client.event()
    sent = Properties(PacketTypes.PUBLISH)
    sent.UserProperty = [("b", "2"), ("a", "1")]
    sent.ResponseTopic, sent.CorrelationData = "paho/answer", b"\x00\xff"
    sent.ContentType, sent.MessageExpiryInterval, sent.TopicAlias = "text/plain", 60, 1
    for topic in ("paho/properties", ""):
        client.publish(topic, "x", 1, properties=sent)
        got = client.next()
        assert got.topic == "paho/properties"
        for name in ("UserProperty", "ResponseTopic", "CorrelationData", "ContentType"):
            assert getattr(got.properties, name) == getattr(sent, name), name
        assert 0 < got.properties.MessageExpiryInterval <= 60
    client.end()


every_quality_of_service()
retained()
wills()
sessions()
shared_subscriptions()
if VERSION == 5:
    properties()
