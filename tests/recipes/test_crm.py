"""crm: contacts get a welcome mail by a real SMTP server: once, or it is said that nobody knows."""

import contextlib
import email
import email.policy
import json
import sqlite3

import pytest

from tests.recipes.killing import Attempts


@pytest.fixture
def slack(new_api):
    return new_api()


@pytest.fixture
def project(new_project, mailbox, slack):
    made = new_project("crm", SMTP_URL=mailbox.url)
    (made.folder / "secrets" / "slack").write_text(slack.url + "/services/T1/B1/key\n")
    return made


def mail_states(project):
    path = project.folder / "var" / "customers.db"
    if not path.exists():
        return {}
    with contextlib.closing(sqlite3.connect(path)) as db:
        return dict(db.execute("SELECT customer, state FROM mail"))


def sample(project, name):
    return json.loads((project.folder / "tests" / "events" / f"{name}.json").read_text())


ADA = "intercom/w7x9k2/5ba682d23d7cf92bef87bfd4"


def test_contacts_of_three_crms_are_welcomed(project, mailbox, slack, new_api):
    """Each by its own endpoint; HubSpot's are asked for at its API."""
    hubspot = new_api(
        {"id": "512", "properties": {"email": "joan@example.com", "firstname": "Joan"}}
    )
    (project.folder / "secrets" / "hubspot-token").write_text("pat-0123456789\n")
    project.environment["HUBSPOT_API"] = hubspot.url
    serving = project.serve()
    for name in ("intercom", "hubspot", "salesforce"):
        event = ("--event", "contact.user.created") if name == "intercom" else ()
        project.send(name, *event, "--body", f"tests/events/{name}.json")
        serving.line_with("done")
    serving.kill()

    mails = [email.message_from_bytes(m, policy=email.policy.default) for m in mailbox.mails]
    assert [m["To"] for m in mails] == ["ada@example.com", "joan@example.com", "grace@example.com"]
    assert "Hello Ada Lovelace," in mails[0].get_body(("plain",)).get_content()
    assert "<p>Hello Joan,</p>" in mails[1].get_body(("html",)).get_content()
    assert len({m["Message-ID"] for m in mails}) == 3
    assert set(mail_states(project).values()) == {"sent"}
    assert [c.headers["authorization"] for c in hubspot.calls] == ["Bearer pat-0123456789"]
    assert "ada@example.com. Their welcome mail is on its way." in slack.calls[0].body["text"]
    assert len(slack.calls) == 3
    said = "".join(serving.lines)
    assert "pat-0123456789" not in said
    assert "/services/T1" not in said


def test_a_service_that_is_killed_in_the_midst_of_a_mail_does_not_send_it_again(
    project, mailbox, slack
):
    mailbox.may_answer.clear()
    killed = project.serve()
    project.send(
        "intercom", "--event", "contact.user.created", "--body", "tests/events/intercom.json"
    )
    assert mailbox.has_come.wait(20)
    killed.kill()
    mailbox.may_answer.set()
    again = project.serve()
    again.line_with("done")

    assert len(mailbox.mails) == 1
    assert mail_states(project) == {ADA: "doubtful"}
    assert ADA in project.python("-m", "shop.mails")
    assert "see `make mails`" in slack.calls[0].body["text"]
    assert project.python("-m", "shop.mails", "settle", "nobody") == "no mail to 'nobody'\n"
    mailbox.answer = "451 later"
    assert "not sent: " in project.python("-m", "shop.mails", "resend", ADA)
    assert ADA in project.python("-m", "shop.mails")
    mailbox.answer = "250 OK"
    # Who reads in the server's log that it was not taken has it sent, with the same Message-ID.
    assert project.python("-m", "shop.mails", "resend", ADA) == "sent\n"
    ids = [email.message_from_bytes(mail)["Message-ID"] for mail in mailbox.mails]
    assert len(ids) == 2
    assert len(set(ids)) == 1
    assert project.python("-m", "shop.mails") == "all were sent\n"


FILES = ("shop/handlers.py", "shop/customers.py", "shop/mails.py", "shop/slack.py")


def kill_between_steps(project, mailbox, slack):
    """An attempt that is killed before its step 1, 2, …, each with a whole one behind it.

    For each the number of mails, the state that is recorded, and how often Slack was told.
    """
    event = {"payload": sample(project, "intercom"), "provider": "intercom"}
    database = project.folder / "var" / "customers.db"
    with contextlib.closing(
        Attempts(project.folder, project.environment, "shop-intercom", *FILES)
    ) as attempts:
        steps = attempts.done(event)
        for step in range(1, steps + 1):
            database.unlink(missing_ok=True)
            mailbox.mails.clear()
            slack.calls.clear()
            assert attempts.run(event, kill_at=step)["killed"]
            attempts.done(event | {"attempt": 2})
            yield len(mailbox.mails), mail_states(project)[ADA], len(slack.calls)


def test_no_mail_twice_whatever_step_a_kill_comes_before(project, mailbox, slack):
    found = list(kill_between_steps(project, mailbox, slack))

    assert len(found) > 40
    # None is lost without a word either: what was not sent is said to be doubtful.
    assert {each[:2] for each in found} == {(1, "sent"), (0, "doubtful"), (1, "doubtful")}
    assert {told for _, _, told in found} == {1, 2}  # Slack may be told twice, never not at all


def test_without_the_record_before_it_there_are_mails_twice(project, mailbox, slack):
    """The control: the same kills find two mails where "sending" is not recorded."""
    project.replace("shop/mails.py", 'await record(key, "sending", "")', "pass")

    assert any(mails == 2 for mails, _, _ in kill_between_steps(project, mailbox, slack))


def test_a_server_that_says_no_has_no_mail(project, mailbox, slack):
    """4xx: another try; 5xx: never; an answer that is none: nobody knows."""
    event = {"payload": sample(project, "intercom"), "provider": "intercom"}
    found = []
    with contextlib.closing(
        Attempts(project.folder, project.environment, "shop-intercom", *FILES)
    ) as attempts:
        for key, answer in [
            ("answer", "451 later"),
            ("recipient_answer", "450 later"),
            ("answer", "550 never"),
            ("recipient_answer", "550 who"),
            ("answer", "999 what"),
        ]:
            setattr(mailbox, key, answer)
            is_tried_again = bool(attempts.run(event)["error"])
            setattr(mailbox, key, "250 OK")
            found.append((is_tried_again, mail_states(project).get(ADA)))
            (project.folder / "var" / "customers.db").unlink()
    assert mailbox.mails == []
    later, never, doubtful = (True, None), (False, "refused"), (False, "doubtful")
    assert found == [later, later, never, never, doubtful]


def test_what_is_no_address_gets_no_mail(project, mailbox, slack):
    payload = sample(project, "intercom")
    with contextlib.closing(
        Attempts(project.folder, project.environment, "shop-intercom", *FILES)
    ) as attempts:
        for index, address in enumerate(["", "none", "a@b.c, d@e.f", "a@b.c\nBcc: d@e.f", "é@b.c"]):
            payload["data"]["item"] |= {"email": address, "id": str(index), "name": "<!channel>"}
            attempts.done({"payload": payload, "provider": "intercom"})

    assert mailbox.mails == []
    assert set(mail_states(project).values()) == {"refused"}
    assert len(slack.calls) == 5
    assert all("&lt;!channel&gt;" in call.body["text"] for call in slack.calls)


def test_slack_is_told_again_and_its_url_is_a_secret(project, mailbox, slack):
    slack.answers[:] = [404, 200]
    event = {"payload": sample(project, "intercom"), "provider": "intercom"}
    with contextlib.closing(
        Attempts(project.folder, project.environment, "shop-intercom", *FILES)
    ) as attempts:
        assert attempts.run(event)["error"] == "Retry: Slack answers 404"
        for attempt in (2, 3):
            attempts.done(event | {"attempt": attempt})
    assert len(slack.calls) == 2
    assert len(mailbox.mails) == 1
