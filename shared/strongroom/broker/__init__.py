"""Talking AMQP: connecting, confirmed publishing, requests and answers, batched consuming, the quarantine.

The only importer of the AMQP driver. Its errors are `strongroom.errors.BrokerUnavailable` (nothing is known
beyond what was confirmed), `Unroutable` and `NoAnswer`; none of them names more of the broker than host, port
and virtual host. SPEC sections 6.5 and 8.
"""

from strongroom.broker.client import Requester
from strongroom.broker.connection import Connection, connect
from strongroom.broker.consumer import Consumer, Delivery
from strongroom.broker.declaration import Finding, QueueLoad, apply_topology, check_topology, queue_loads
from strongroom.broker.endpoint import ClientCertificate
from strongroom.broker.quarantine import Quarantined, drop, find, peek, quarantine_id, requeue

__all__ = [
    "ClientCertificate",
    "Connection",
    "Consumer",
    "Delivery",
    "Finding",
    "Quarantined",
    "QueueLoad",
    "Requester",
    "apply_topology",
    "check_topology",
    "connect",
    "drop",
    "find",
    "peek",
    "quarantine_id",
    "queue_loads",
    "requeue",
]
