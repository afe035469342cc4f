from pipelines.features.registry_version import connection


def test_an_address_as_feast_writes_it_keeps_port_password_and_tls():
    found = connection("valkey:6379,password=a=b,ssl=true,db=2")
    assert (found["host"], found["port"], found["password"], found["ssl"], found["db"]) == (
        "valkey",
        6379,
        "a=b",
        True,
        2,
    )


def test_an_address_without_options_is_enough():
    found = connection("127.0.0.1:6379")
    assert (found["host"], found["port"]) == ("127.0.0.1", 6379)
    assert "password" not in found
