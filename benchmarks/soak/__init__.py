"""A soak of groups: members of two workers come, go, publish and crash, while Redis and workers are killed.

`python -m benchmarks.soak --minutes 10`

Every member checks that it gets each message of its groups once and in each publisher's order; a member that returns
after a crash continues with the id of its last message. A missing message is a fault unless its publisher was told so,
or the member was told of a gap.
"""
