"""What people run today: one file each, the way its users would write it at its best.

All verify in constant time, decode into a typed value, and say at `/counts` how many they
accepted, refused and, where they store, stored. `BENCH_PROVIDER` says whose events come.
"""
