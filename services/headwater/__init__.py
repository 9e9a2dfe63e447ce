"""headwater: fleets of LLM agents on Apache Kafka, for people who must prove what their agents did."""
