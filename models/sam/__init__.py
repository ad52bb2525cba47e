"""The Segment Anything family: encoders, prompt encoder, mask decoder, and published weights."""
