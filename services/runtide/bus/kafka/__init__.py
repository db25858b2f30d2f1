"""The bus on Kafka: an idempotent producer that is thrown away when it sticks, and a consumer group member.

Promises: publish() returns after acks=all, or raises within `send_timeout_s`; close() is bounded in time whatever the
brokers do; messages of one key keep the order in which publish() was called.
"""

from runtide.bus.kafka.consumer import KafkaConsumer
from runtide.bus.kafka.publisher import KafkaPublisher
from runtide.bus.kafka.settings import KafkaSettings
from runtide.bus.kafka.topics import ensure_topics

__all__ = ["KafkaConsumer", "KafkaPublisher", "KafkaSettings", "ensure_topics"]
