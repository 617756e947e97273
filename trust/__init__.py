"""Identities, credentials, the threshold authority, X.509-SVIDs, admission and revocation.

Invariant: nothing but `trust/tls.py` touches TLS, files or sockets; `now` and entropy come from the caller.
"""
