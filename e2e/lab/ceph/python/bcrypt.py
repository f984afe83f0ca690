"""Stands in for bcrypt, whose compiled half cannot be loaded into ceph-mgr's sub-interpreters. Nobody logs in here."""


def gensalt(rounds=12, prefix=b"2b"):
    return b"$2b$12$0000000000000000000000"


def hashpw(password, salt):
    raise NotImplementedError("no password is kept in the lab")


def checkpw(password, hashed):
    return False
