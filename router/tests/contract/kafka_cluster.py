"""A cluster of librdkafka's mock brokers, and its consumer.

Writes the address of the cluster as a line, then every record of topic `logs` as a line of JSON. Reads
commands, a line each: `error CODE` (the next request to produce, at any broker), `leader PARTITION BROKER`,
`down BROKER`, `up BROKER`, `place KEY` (answers with the partition that librdkafka's own murmur2
partitioner chooses).
"""

import ctypes
import glob
import json
import os
import sys
import threading

import confluent_kafka

BROKERS = 3
PARTITIONS = 4
PRODUCE = 0

folder = os.path.dirname(os.path.dirname(confluent_kafka.__file__))
library = ctypes.CDLL(glob.glob(folder + "/confluent_kafka.libs/librdkafka*.so*")[0])
library.rd_kafka_conf_new.restype = ctypes.c_void_p
library.rd_kafka_new.restype = ctypes.c_void_p
library.rd_kafka_new.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
library.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
library.rd_kafka_mock_cluster_new.argtypes = [ctypes.c_void_p, ctypes.c_int]
library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
library.rd_kafka_mock_cluster_bootstraps.argtypes = [ctypes.c_void_p]
library.rd_kafka_mock_topic_create.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
library.rd_kafka_mock_partition_set_leader.argtypes = [
    ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32]
library.rd_kafka_mock_broker_set_down.argtypes = [ctypes.c_void_p, ctypes.c_int32]
library.rd_kafka_mock_broker_set_up.argtypes = [ctypes.c_void_p, ctypes.c_int32]
library.rd_kafka_mock_push_request_errors_array.argtypes = [
    ctypes.c_void_p, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)]

reason = ctypes.create_string_buffer(512)
handle = library.rd_kafka_new(0, library.rd_kafka_conf_new(), reason, len(reason))
cluster = library.rd_kafka_mock_cluster_new(handle, BROKERS)
bootstrap = library.rd_kafka_mock_cluster_bootstraps(cluster).decode()
for topic in (b"logs", b"places"):
    library.rd_kafka_mock_topic_create(cluster, topic, PARTITIONS, BROKERS)

lock = threading.Lock()


def say(line):
    with lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def consume():
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": "reader",
        "enable.auto.commit": False,
        "check.crcs": True,
        "fetch.wait.max.ms": 50,
        "reconnect.backoff.max.ms": 100,
    })
    start = confluent_kafka.OFFSET_BEGINNING
    consumer.assign([confluent_kafka.TopicPartition("logs", n, start) for n in range(PARTITIONS)])
    while True:
        message = consumer.poll(1)
        if message is None or message.error():
            continue
        headers = {name: value.decode() for name, value in message.headers() or []}
        say(json.dumps({
            "partition": message.partition(),
            "key": message.key().decode(),
            "event": json.loads(message.value()),
            "headers": headers,
        }))


def place(key):
    found = []
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2"})
    producer.produce("places", b"", key=key, on_delivery=lambda _, message: found.append(message.partition()))
    producer.flush()
    say(json.dumps({"place": found[0]}))


say(bootstrap)
threading.Thread(target=consume, daemon=True).start()
for line in sys.stdin:
    command, *words = line.split()
    if command == "error":
        codes = (ctypes.c_int * 1)(int(words[0]))
        library.rd_kafka_mock_push_request_errors_array(cluster, PRODUCE, 1, codes)
    elif command == "leader":
        library.rd_kafka_mock_partition_set_leader(cluster, b"logs", int(words[0]), int(words[1]))
    elif command == "down":
        library.rd_kafka_mock_broker_set_down(cluster, int(words[0]))
    elif command == "up":
        library.rd_kafka_mock_broker_set_up(cluster, int(words[0]))
    elif command == "place":
        place(words[0])
