"""DELIVERY: nothing is told twice or never, whatever the receiver does. Real ticks, a Bot API on the loopback."""

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
import unittest
from unittest import mock

from tests import botapi, ops
from tests.botapi import OWNER, TOKEN, BotApi, House

REPEAT = "(possible repeat)"
HEADLINE = "🔴 ALERT · disk"


class Case(unittest.TestCase):
    def setUp(self):
        self.maxDiff = 2000

    def house(self, *plan, jobs=None, **settings):
        """A Bot API that plays `plan`, and a house with one failing check."""
        self.bot = BotApi(self, *plan)
        house = House(self, self.bot, **settings)
        house.set_jobs(*(jobs if jobs is not None else [house.check()]))
        return house

    def told(self, words=HEADLINE):
        """How often a person has read these words by the Bot API."""
        return sum(text.count(words) for text in self.bot.texts)


class NothingIsToldTwiceOrNever(Case):
    # (sentence, the fault, whether the outcome is unknown)
    FAULTS = [
        ("a server error", botapi.server_error, True),
        ("a gateway's error page", botapi.bad_gateway, True),
        ("too many requests", botapi.too_many, False),
        ("the token is not accepted", botapi.unauthorized, False),
        ("the bot was blocked", botapi.blocked, False),
        ("the chat is not found", botapi.no_chat, False),
        ("ok is false although HTTP says 200", botapi.denied_with_200, False),
        ("ok is false without a code", botapi.no_code_with_200, False),
        ("the connection is reset before the request is read", botapi.drop_unread, True),
        ("the connection is reset after the request was read", botapi.drop, True),
        ("no answer within the time limit", botapi.hang, True),
        ("an answer that is no JSON", botapi.garbage, True),
    ]

    def test_when_the_fault_is_gone_the_alert_arrives_once_and_its_check_has_run_once(self):
        for sentence, fault, is_unknown in self.FAULTS:
            with self.subTest(sentence):
                house = self.house(fault, fault)
                with mock.patch.object(ops, "HTTP_TIMEOUT", 0.2):
                    first = house.tick()
                    self.assertEqual(first.code, ops.UNDELIVERED, first.err)
                    self.assertEqual([entry.get("maybeSent", False) for entry in house.outbox], [is_unknown])
                    asked = self.bot.connections
                    self.assertEqual(house.tick().code, ops.UNDELIVERED)
                    self.assertEqual(self.bot.connections, asked, "an entry's notBefore was not respected")
                    house.make_due()
                    self.assertEqual(house.tick().code, ops.UNDELIVERED)
                    house.make_due()
                    self.assertEqual(house.tick(), (ops.DONE, "", ""))
                self.assertEqual(self.told(), 1)
                self.assertEqual(REPEAT in self.bot.texts[0], is_unknown)
                self.assertEqual(house.outbox, [])
                house.tick()
                self.assertEqual((self.told(), house.runs()), (1, 1))

    def test_a_message_that_arrived_without_a_confirmation_is_repeated_once_and_marked(self):
        house = self.house(botapi.lost)
        house.tick()
        house.make_due()
        house.tick()
        house.tick()
        self.assertEqual([REPEAT in text for text in self.bot.texts], [False, True])
        self.assertEqual((self.told(), house.runs()), (2, 1))

    def test_while_nobody_listens_nothing_is_lost(self):
        house = self.house()
        listening = house.telegram["apiRoot"]
        house.telegram["apiRoot"] = f"http://127.0.0.1:{botapi.free_port()}"
        house.write()
        self.assertEqual(house.tick().code, ops.UNDELIVERED)
        self.assertFalse(house.outbox[0].get("maybeSent"))
        house.telegram["apiRoot"] = listening
        house.write()
        house.make_due()
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual((self.told(), REPEAT in self.bot.texts[0], house.runs()), (1, False, 1))

    def test_a_redirect_is_not_followed(self):
        house = self.house()
        other = BotApi(self)
        self.bot.plan = [botapi.redirect(other.url + "/bot1:x/sendMessage")]
        house.tick()
        self.assertEqual(other.connections, 0)
        house.make_due()
        house.tick()
        self.assertEqual((self.told(), house.runs()), (1, 1))

    def test_the_waits_double_from_half_a_minute_to_half_an_hour(self):
        house = self.house()
        self.bot.always = botapi.server_error
        waits = []
        for _ in range(9):
            house.tick()
            waits.append(house.outbox[0]["notBefore"] - time.time())
            house.make_due()
        for wait, wanted in zip(waits, (30, 60, 120, 240, 480, 960, 1800, 1800, 1800)):
            self.assertTrue(wanted - 20 < wait <= wanted + 1, waits)

    def test_any_run_of_faults_tells_each_alert_once_and_repeats_only_what_is_marked(self):
        faults = [fault for _, fault, _ in self.FAULTS if fault is not botapi.hang] + [botapi.lost, botapi.ok, botapi.ok]
        for seed in range(6):
            chance = random.Random(seed)
            house = self.house()
            names = [f"check{number}" for number in range(5)]
            for step in range(12):
                if step < len(names):
                    house.set_jobs(*(house.check(name) for name in names[: step + 1]))
                self.bot.plan[:] = [chance.choice(faults)]
                house.tick()
                if chance.random() < 0.7:
                    house.make_due()
            self.bot.plan.clear()
            for _ in range(2):
                house.make_due()
                house.tick()
            with self.subTest(seed=seed):
                self.assertEqual(house.outbox, [])
                for name in names:
                    read = [text for text in self.bot.texts if f"· {name}\n" in text]
                    self.assertEqual(house.runs(name), 1)
                    self.assertGreaterEqual(len(read), 1)
                    for text in read[1:]:  # only this section has to be marked: others of the message may be new
                        section = next(part for part in text.split("\n\n") if f"· {name}\n" in part)
                        self.assertIn(REPEAT, section)

    def test_killed_between_sending_and_saving_there_is_one_repeat_and_nothing_lost(self):
        class Killed(BaseException):
            pass

        house = self.house()
        sent = []

        def stop_at(step):
            if step == "receive":
                sent.append(step)
            elif sent and step == "replace":
                raise Killed

        with mock.patch.object(ops, "reach", stop_at), self.assertRaises(Killed):
            house.tick()
        self.assertEqual(self.told(), 1)
        for _ in range(3):
            self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual((self.told(), house.runs()), (2, 1))

    def test_entries_leave_one_message_after_the_other(self):
        house = self.house(botapi.ok, botapi.ok, botapi.server_error, jobs=[])
        house.put(*({"text": f"section {number}\n" + "x" * 3000} for number in range(4)))
        left = []
        self.bot.watchers.append(lambda request: left.append(len(house.outbox)))
        self.assertEqual(house.tick().code, ops.UNDELIVERED)
        self.assertEqual(left, [4, 3, 2])
        self.assertEqual([entry["text"][:9] for entry in house.outbox], ["section 2", "section 3"])
        self.assertEqual([entry.get("maybeSent", False) for entry in house.outbox], [True, False])

    def test_with_a_moment_spent_no_other_send_begins(self):
        house = self.house(botapi.slow_ok, jobs=[])
        house.put(*({"text": f"section {number}\n" + "x" * 3000} for number in range(3)))
        with mock.patch.object(ops, "DELIVERY_BUDGET", 0.02):
            self.assertEqual(house.tick().code, ops.UNDELIVERED)
        self.assertEqual((len(self.bot.requests), len(house.outbox)), (1, 2))
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual(len(self.bot.requests), 3)

    def test_while_another_process_delivers_this_one_leaves_it_to_that(self):
        house = self.house()
        with house.held_lock("delivery"):
            house.tick()
            self.assertEqual((self.bot.connections, len(house.outbox)), (0, 1))
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual((self.told(), house.runs()), (1, 1))


class TheOtherWay(Case):
    """With both a token and an `openclaw`: the second way only when the first has definitely not sent."""

    # (sentence, the Bot API's fault, whether openclaw is tried at once)
    TABLE = [
        ("not accepted", botapi.unauthorized, True),
        ("blocked", botapi.blocked, True),
        ("no such chat", botapi.no_chat, True),
        ("no answer of the Bot API below 500", botapi.answer(404, b"not here"), True),
        ("ok is false", botapi.no_code_with_200, True),
        ("a server error", botapi.server_error, False),
        ("an error page", botapi.bad_gateway, False),
        ("an answer lost", botapi.lost, False),
        ("a reset", botapi.drop_unread, False),
        ("garbage", botapi.garbage, False),
        ("asked to wait", botapi.too_many, False),
    ]

    def test_openclaw_is_tried_at_once_exactly_after_a_definite_no(self):
        for sentence, fault, is_tried in self.TABLE:
            with self.subTest(sentence):
                house = self.house(fault)
                house.fake_openclaw()
                self.assertEqual(house.tick().code, ops.DONE if is_tried else ops.UNDELIVERED)
                self.assertEqual(len(house.calls), int(is_tried))
                house.make_due() if house.outbox else None
                house.tick()
                told = self.told() + sum(text.count(HEADLINE) for text in house.called_with("--message"))
                self.assertEqual(told, 2 if fault is botapi.lost else 1)
                self.assertEqual(house.runs(), 1)

    def test_a_bot_api_that_nobody_answers_for_is_a_definite_no(self):
        house = House(self)  # apiRoot: a port where nobody listens
        house.fake_openclaw()
        house.set_jobs(house.check())
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual((len(house.calls), house.outbox), (1, []))

    def test_a_refused_token_is_not_tried_again_with_every_message_that_openclaw_delivers(self):
        house = self.house()
        house.fake_openclaw()
        self.bot.always = botapi.unauthorized
        house.tick()
        house.set_jobs(house.check(), house.check("second"))
        house.tick()
        self.assertEqual(len(house.calls), 2)
        self.assertEqual(len(self.bot.requests), 1, "a bot that was refused was asked again within 6 h")

    # (sentence, what openclaw does, whether it is definitely not sent, whether the outcome is unknown)
    OPENCLAW = [
        ("exit 0", {}, False, False),
        ("not found", {"code": 127, "err": "sh: node: not found"}, True, False),
        ("cannot execute", {"code": 126}, True, False),
        ("no gateway", {"code": 1, "err": "Error: Gateway not reachable at ws://127.0.0.1:18789"}, True, False),
        ("no credentials", {"code": 1, "err": "Error: telegram requires credentials"}, True, False),
        ("a config that is invalid", {"code": 1, "err": "Config invalid: channels.telegram"}, True, False),
        ("unknown channel", {"code": 1, "err": "Unknown channel: telegrm"}, True, False),
        ("the network failed", {"code": 1, "err": "Network request for 'sendMessage' failed!"}, False, True),
        ("a server error", {"code": 1, "err": "Call to 'sendMessage' failed! (502: Bad Gateway)"}, False, True),
        ("too many requests", {"code": 1, "err": "Call to 'sendMessage' failed! (429: Too Many Requests)"}, False, True),
        ("exit 1 without a word", {"code": 1}, False, True),
        ("a partial delivery", {"code": 1, "err": "delivered 1 of 2 parts"}, False, True),
        ("a part and a no", {"code": 1, "err": "delivered 1 of 2 parts; last error: 403: Forbidden"}, False, True),
        ("no way to Telegram", {"code": 1, "err": "Network request for 'sendMessage' failed! connect ECONNREFUSED 192.0.2.1:443"}, False, True),
        ("a no of the Bot API", {"code": 1, "err": "Call to 'sendMessage' failed! (400: Bad Request: chat not found)"}, True, False),
    ]

    def test_what_openclaw_says_decides_whether_the_message_is_marked_as_a_possible_repeat(self):
        for sentence, step, is_definite, is_unknown in self.OPENCLAW:
            with self.subTest(sentence):
                house = self.house(delivery={"via": "openclaw"})
                house.fake_openclaw(step)
                self.assertEqual(house.tick().code, ops.UNDELIVERED if is_definite or is_unknown else ops.DONE)
                self.assertEqual([entry.get("maybeSent", False) for entry in house.outbox], [is_unknown] if is_definite or is_unknown else [])
                if house.outbox:
                    house.make_due()
                    self.assertEqual(house.tick().code, ops.DONE)
                self.assertEqual(house.tick().code, ops.DONE)
                texts = house.called_with("--message")
                self.assertEqual(len(texts), 1 + is_definite + is_unknown)
                self.assertEqual(REPEAT in texts[-1], is_unknown)
                self.assertEqual((house.runs(), self.bot.connections), (1, 0))

    def test_an_openclaw_that_hangs_is_ended_and_its_outcome_is_unknown(self):
        house = self.house(delivery={"via": "openclaw"})
        house.fake_openclaw({"sleep": 30, "ignore_term": True})
        with mock.patch.object(ops, "OPENCLAW_TIMEOUT", 0.3), mock.patch.object(ops, "GRACE", 0.1):
            self.assertEqual(house.tick().code, ops.UNDELIVERED)
        self.assertEqual([entry["maybeSent"] for entry in house.outbox], [True])
        house.make_due()
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertIn(REPEAT, house.called_with("--message")[-1])

    def test_an_openclaw_that_cannot_be_executed_is_a_definite_no(self):
        house = self.house(delivery={"via": "openclaw"})
        path = house.fake_openclaw()
        with open(path, "w") as file:
            file.write("#!/no/such/node\n")
        self.assertEqual(house.tick().code, ops.UNDELIVERED)
        self.assertFalse(house.outbox[0].get("maybeSent"))

    def test_the_binary_is_called_once_a_tick(self):
        house = self.house(delivery={"via": "openclaw"})
        house.fake_openclaw()
        house.set_jobs(house.check(), house.watched())
        self.assertEqual(house.tick().code, ops.UNDELIVERED)
        self.assertEqual(len(house.calls), 1)
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual([("--silent" in call["argv"]) for call in house.calls], [False, True])

    def test_via_api_never_calls_openclaw_and_via_openclaw_never_the_api(self):
        house = self.house(botapi.unauthorized, delivery={"via": "api"})
        house.fake_openclaw()
        self.assertEqual(house.tick().code, ops.UNDELIVERED)
        self.assertEqual((len(house.calls), len(self.bot.requests)), (0, 1))
        house = self.house(delivery={"via": "openclaw"})
        house.fake_openclaw({"code": 127})
        self.assertEqual(house.tick().code, ops.UNDELIVERED)
        self.assertEqual((len(house.calls), self.bot.connections), (1, 0))


class WhatOpenclawGets(Case):
    def call(self, jobs=None, env=None, **delivery):
        house = self.house(delivery={"via": "openclaw", **delivery})
        path = house.fake_openclaw()
        if jobs:
            house.set_jobs(*jobs(house))
        self.assertEqual(house.tick(**(env or {})).code, ops.DONE)
        return house, path, house.calls[0]

    def test_channel_and_target_are_always_named(self):
        house, _, call = self.call()
        self.assertEqual(call["argv"][:2], ["message", "send"])
        self.assertEqual(house.called_with("--channel") + house.called_with("--target"), ["telegram", OWNER])
        self.assertEqual(house.called_with("--account") + house.called_with("--thread-id"), [None, None])
        self.assertNotIn("--silent", call["argv"])

    def test_account_thread_and_any_channel_are_passed_on(self):
        house, _, _ = self.call(channel="discord", target="channel:4711", account="ops", threadId="9")
        names = ("--channel", "--target", "--account", "--thread-id")
        self.assertEqual([house.called_with(name)[0] for name in names], ["discord", "channel:4711", "ops", "9"])

    def test_the_text_stands_in_one_fence_whatever_it_holds(self):
        says = "*bold* <host> Vec<int>  indented ```\n# ALERT```"
        house, _, _ = self.call(lambda house: [house.check(says=says)])
        text = house.called_with("--message")[0]
        self.assertTrue(text.startswith("```\n🛠️ Ops 快报（") and text.endswith("\n```"), text)
        self.assertEqual(text.count("```"), 2)
        self.assertIn("*bold* <host> Vec<int>  indented", text)

    def test_its_environment_leads_to_the_same_openclaw_and_starts_nothing_that_outlives_it(self):
        house, path, call = self.call(env={"OPENCLAW_HOME": "", "NODE_ENV": "x"})
        env = call["env"]
        self.assertNotIn("OPENCLAW_HOME", env)
        wanted = {
            "OPENCLAW_STATE_DIR": house.claw, "OPENCLAW_CONFIG_PATH": house.openclaw_file,
            "OPENCLAW_NO_RESPAWN": "1", "NO_COLOR": "1", "HOME": house.home, "NODE_ENV": "x",
        }  # fmt: skip
        self.assertEqual({name: env.get(name) for name in wanted}, wanted)
        self.assertEqual(env["PATH"].split(":")[0], os.path.dirname(path))
        if os.path.isdir("/proc/self"):
            self.assertEqual(call["stdin"], "/dev/null")

    def test_openclaw_home_as_v1_used_it_becomes_the_state_dir(self):
        house = self.house(delivery={"via": "openclaw"})
        house.fake_openclaw()
        self.assertEqual(house.tick(OPENCLAW_HOME=house.claw).code, ops.DONE)
        env = house.calls[0]["env"]
        self.assertEqual((env.get("OPENCLAW_HOME"), env["OPENCLAW_STATE_DIR"]), (None, house.claw))

    def test_the_directory_behind_a_link_comes_into_the_path_too(self):
        house = self.house(delivery={"via": "openclaw"})
        path = house.fake_openclaw()
        behind = os.path.join(house.top, "node", "bin")
        os.makedirs(behind)
        os.rename(path, os.path.join(behind, "openclaw.sh"))
        os.symlink(os.path.join(behind, "openclaw.sh"), path)
        house.tick()
        self.assertEqual(house.calls[0]["env"]["PATH"].split(":")[:2], [os.path.dirname(path), behind])

    def test_it_is_no_argument_that_the_system_refuses(self):
        house = self.house(delivery={"via": "openclaw"})
        house.fake_openclaw()
        house.put(*({"text": "汉" * 3000} for _ in range(300)))
        house.tick()
        self.assertLess(len(house.called_with("--message")[0].encode()), 128 << 10)


class Refused(Case):
    """401, 403, chat not found: only every 6 h, until something changes that the refusal depended on."""

    def refused(self, fault=botapi.unauthorized):
        house = self.house(fault)
        house.tick()
        return house

    def test_it_waits_six_hours(self):
        for fault in (botapi.unauthorized, botapi.blocked, botapi.no_chat, botapi.denied_with_200):
            house = self.refused(fault)
            wait = house.outbox[0]["notBefore"] - time.time()
            self.assertTrue(6 * 3600 - 60 < wait <= 6 * 3600 + 1, wait)

    def test_new_alerts_do_not_ask_again(self):
        house = self.refused()
        for number in range(4):
            house.set_jobs(house.check(), *(house.check(f"more{index}") for index in range(number + 1)))
            self.assertEqual(house.tick().code, ops.UNDELIVERED)
        self.assertEqual((len(self.bot.requests), len(house.outbox)), (1, 5))

    def test_another_token_is_tried_at_once(self):
        house = self.refused()
        house.telegram["botToken"] = "700000002:" + "q" * 35
        house.write()
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual((self.told(), self.bot.shown[0].token[:9], house.runs()), (1, "700000002", 1))

    def test_another_target_is_tried_at_once(self):
        house = self.refused(botapi.no_chat)
        house.settings["delivery"] = {"target": "888"}
        house.write()
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual([request.chat for request in self.bot.shown], ["888"])

    def test_an_openclaw_that_appears_is_tried_at_once(self):
        house = self.refused()
        house.fake_openclaw()
        self.bot.always = botapi.unauthorized
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual(len(house.calls), 1)

    def test_once_it_works_again_everything_leaves(self):
        house = self.refused()
        house.set_jobs(house.check(), house.check("second"))
        house.tick()
        house.make_due()
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual((self.told(), self.told("🔴 ALERT · second"), house.outbox), (1, 1, []))

    def test_asked_to_wait_it_stores_the_wait_and_does_not_sleep(self):
        house = self.house(botapi.refusal(429, "Too Many Requests", retry_after=1200))
        with mock.patch.object(ops.time, "sleep", side_effect=AssertionError("slept")):
            house.tick()
        wait = house.outbox[0]["notBefore"] - time.time()
        self.assertTrue(1140 < wait <= 1201, wait)
        house.set_jobs(house.check(), house.check("second"))
        house.tick()
        self.assertEqual(len(self.bot.requests), 1, "another message went out before retry_after was over")


class TheReceiver(Case):
    # (sentence, our delivery settings, arguments, OpenClaw's config, chat, thread)
    OWNERS = {"commands": {"ownerAllowFrom": ["discord:1", "telegram:444"]}}
    BEAT = {"agents": {"defaults": {"heartbeat": {"target": "telegram", "to": "333"}}}}
    TABLE = [
        ("--target comes first", {"target": "222"}, ["--target", "111"], {**BEAT, **OWNERS}, "111", None),
        ("then delivery.target", {"target": "222"}, [], {**BEAT, **OWNERS}, "222", None),
        ("then the heartbeat of agent main", {}, [], {**BEAT, **OWNERS}, "333", None),
        ("then commands.ownerAllowFrom", {}, [], OWNERS, "444", None),
        ("then defaultTo", {}, [], {"telegram": {"defaultTo": "tg:555", "allowFrom": [666]}}, "555", None),
        ("then the first person in allowFrom", {}, [], {"telegram": {"allowFrom": ["*", "-100666", 666]}}, "666", None),
        ("a name", {"target": "@channel"}, [], {}, "@channel", None),
        ("a topic", {"target": "telegram:-100777:topic:5"}, [], {}, "-100777", 5),
        ("topic 1 has no thread", {"target": "-100777:1"}, [], {}, "-100777", None),
        ("delivery.threadId", {"target": "-100777", "threadId": 8}, [], {}, "-100777", 8),
    ]

    def test_the_target_is_found_in_this_order(self):
        for sentence, delivery, argv, theirs, chat, thread in self.TABLE:
            with self.subTest(sentence):
                house = self.house(delivery=delivery)
                telegram = {**house.telegram, **theirs.get("telegram", {})}
                house.claw_config = {**{key: value for key, value in theirs.items() if key != "telegram"}, "channels": {"telegram": telegram}}
                house.write()
                self.assertEqual(house.tick(*argv).code, ops.DONE)
                body = self.bot.shown[0].body
                self.assertEqual((str(body["chat_id"]), body.get("message_thread_id")), (chat, thread))

    def test_without_a_target_nothing_is_lost_and_no_wait_begins(self):
        house = self.house()
        house.claw_config.pop("commands")
        house.write()
        ran = house.tick()
        self.assertEqual(ran.code, ops.UNDELIVERED)
        self.assertIn("no target", ran.err)
        before = house.outbox
        self.assertLessEqual(before[0]["notBefore"], time.time())
        house.tick()
        self.assertEqual(house.outbox, before)
        house.settings["delivery"] = {"target": "222"}
        house.write()
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual((self.told(), house.runs()), (1, 1))

    def test_trouble_with_delivery_is_printed_when_it_begins_and_not_with_every_tick(self):
        house = self.house()
        house.claw_config.pop("commands")
        house.write()
        printed = [house.tick() for _ in range(4)]
        self.assertEqual([ran.code for ran in printed], [ops.UNDELIVERED] * 4)
        self.assertEqual([bool(ran.err) for ran in printed], [True, False, False, False])

    def test_without_a_token_and_without_openclaw_nothing_is_lost(self):
        house = self.house()
        house.claw_config = {}
        house.write()
        self.assertEqual(house.tick(TELEGRAM_BOT_TOKEN="").code, ops.UNDELIVERED)
        self.assertEqual((len(house.outbox), self.bot.connections), (1, 0))

    def test_a_group_that_moved_is_followed_at_once_and_remembered(self):
        house = self.house(delivery={"target": "-500"})
        self.bot.always = botapi.moved(-100500)
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual([request.chat for request in self.bot.requests], ["-500", "-100500"])
        self.assertEqual(self.told(), 1)
        house.set_jobs(house.check(), house.check("second"))
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual([request.chat for request in self.bot.requests], ["-500", "-100500", "-100500"])

    def test_another_account_is_asked_at_once_what_the_last_one_was_refused(self):
        house = self.house(delivery={"via": "openclaw", "account": "work"})
        house.fake_openclaw({"code": 1, "err": "Error: Call to 'sendMessage' failed! (403: Forbidden)"})
        self.assertEqual(house.tick().code, ops.UNDELIVERED)
        self.assertEqual(house.tick().code, ops.UNDELIVERED)
        self.assertEqual(len(house.calls), 1)
        house.settings["delivery"]["account"] = "home"
        house.write()
        self.assertEqual((house.tick().code, len(house.calls)), (ops.DONE, 2))

    def test_a_topic_on_telegram_is_a_number(self):
        for thread, warned in (("Alerts", True), ("7", False), (7, False)):
            config = ops.read_config(json.dumps({"version": 1, "jobs": [], "delivery": {"threadId": thread}}))
            self.assertEqual([problem.text for problem in config.problems], ["a topic on Telegram is a number"] * warned)

    def test_the_config_of_openclaw_may_be_broken_elsewhere(self):
        house = self.house()
        with open(house.openclaw_file, "w") as file:
            file.write("// by hand\n{channels: {telegram: " + json.dumps(house.telegram) + "},\n")
            file.write("commands: {ownerAllowFrom: ['telegram:9']}, x: {$include: './gone.json'},}")
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual([request.chat for request in self.bot.shown], ["9"])

    def test_a_command_gets_the_text_on_its_standard_input(self):
        house = self.house(host="x")
        target = os.path.join(house.work, "mail")
        house.settings.update(delivery={"via": "command", "command": ["/bin/sh", "-c", f"while read -r line; do echo \"$line\" >> '{target}'; done"]})
        house.write()
        self.assertEqual(house.tick().code, ops.DONE)
        with open(target, encoding="utf-8") as file:
            text = file.read()
        self.assertEqual((text.count(HEADLINE), text.startswith("🛠️ Ops 快报（"), self.bot.connections), (1, True, 0))

    def test_a_command_that_fails_keeps_the_message(self):
        house = self.house(delivery={"via": "command", "command": ["/bin/sh", "-c", "exit 1"]})
        self.assertEqual(house.tick().code, ops.UNDELIVERED)
        self.assertEqual([entry["maybeSent"] for entry in house.outbox], [True])
        house.settings["delivery"]["command"] = ["/no/such/program"]
        house.write()
        house.make_due()
        self.assertEqual(house.tick().code, ops.UNDELIVERED)
        self.assertEqual((len(house.outbox), house.runs()), (1, 1))

    def test_via_none_sends_nothing_anywhere_and_loses_nothing(self):
        house = self.house(delivery={"via": "none"})
        house.fake_openclaw()
        self.assertEqual(house.tick().code, ops.UNDELIVERED)
        self.assertEqual((self.bot.connections, house.calls, len(house.outbox)), (0, [], 1))


class WhatIsSaid(Case):
    def test_the_header_tells_the_time_and_the_host(self):
        for settings, ending in (({}, ""), ({"monitor": {"host": "mini"}}, " mini")):
            house = self.house(**settings)
            house.tick()
            self.assertRegex(self.bot.texts[0].splitlines()[0], r"^🛠️ Ops 快报（\d\d:\d\d:\d\d）" + ending + "$")

    def test_alerts_ring_and_routine_comes_in_a_second_message_without_sound(self):
        house = self.house()
        house.set_jobs(house.watched(), house.check(), house.watched("crawl"))
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual([request.rings for request in self.bot.shown], [True, False])
        loud, quiet = self.bot.texts
        self.assertEqual((HEADLINE in loud, "index" in loud, "index" in quiet, "crawl" in quiet, HEADLINE in quiet), (True, False, True, True, False))

    def test_the_worst_comes_first(self):
        house = self.house(jobs=[])
        house.put({"text": "warned", "rank": 2}, {"text": "alerted", "rank": 3}, {"text": "noted", "rank": 1}, {"text": "progress", "rank": 0})
        house.tick()
        text = "\n".join(self.bot.texts)
        places = [text.index(word) for word in ("alerted", "warned", "noted", "progress")]
        self.assertEqual(places, sorted(places))

    def test_what_the_receiver_gets_is_what_was_said(self):
        says = "ALERT <b>disk</b> & *95%* _x_ `y` [z](http://127.0.0.1/)"
        house = self.house()
        house.set_jobs(house.check(code=0, says=says))
        house.tick()
        self.assertIn(says, self.bot.texts[0])

    def test_in_chinese_the_words_that_people_grep_for_stay(self):
        house = self.house(monitor={"language": "zh"})
        house.tick()
        self.assertIn(HEADLINE, self.bot.texts[0])
        self.assertIn("退出码 3", self.bot.texts[0])
        self.assertNotIn("exit code", self.bot.texts[0])

    def test_a_thousand_alerts_at_once_are_five_messages_and_the_rest_is_counted(self):
        house = self.house(jobs=[])
        now = time.time() - 1
        entry = {"notBefore": now, "status": "pending", "attempt": 0, "createdAt": now}
        queue = [{"id": f"q{number}", "jobId": f"gone-{number}", **entry} for number in range(1000)]
        house.change_state(lambda raw: raw.update(queue=queue))
        house.tick()
        self.assertLessEqual(len(self.bot.shown), 5)
        shown = sum(len(re.findall("ACTION REQUIRED", text)) for text in self.bot.texts)
        counted = re.search(r"and more: (\d+)\. See: (.*)", self.bot.texts[-1])
        self.assertTrue(counted, self.bot.texts[-1][-300:])
        self.assertIn("status", counted[2])
        self.assertEqual(shown + int(counted[1]), 1000)
        self.assertEqual(house.outbox, [])
        house.tick()
        self.assertLessEqual(len(self.bot.shown), 5)

    def test_five_messages_are_the_limit_of_any_number_of_entries(self):
        entries = [{"id": str(number), "createdAt": number, "rank": 3, "text": f"[{number}]" + "汉" * (number % 900)} for number in range(1000)]
        for most in (5, 3, 1):
            messages = ops.compose("en", entries, 1000.0, "header", str, most)
            self.assertEqual(len(messages), most)
            self.assertEqual(sorted(sum((message.entries for message in messages), ())), sorted(entry["id"] for entry in entries))
            for message in messages:
                self.assertLessEqual(ops.utf16_length(message.text), 4000)

    def test_a_late_message_says_when_it_happened(self):
        house = self.house(botapi.server_error)
        house.tick()
        house.age(3 * 3600)
        created = house.outbox[0]["createdAt"]
        house.tick()
        self.assertRegex(self.bot.texts[0], "late: this happened at .*" + re.escape(ops.Clock().text(created)))
        house = self.house()
        house.tick()
        self.assertNotIn("late", self.bot.texts[0])

    def test_the_token_is_shown_nowhere(self):
        echo = botapi.refusal(400, f"Bad Request: /bot{TOKEN}/sendMessage; Bearer {TOKEN}")
        faults = [echo, botapi.answer(500, f"proxy error for /bot{TOKEN}/".encode()), botapi.drop, botapi.garbage, botapi.redirect(f"http://127.0.0.1:9/bot{TOKEN}/")]
        for root in ("", "http://127.0.0.1:1", "http://[bad", "nonsense", "http://127.0.0.1:99999", "http://no such host/"):
            for fault in faults if not root else [botapi.ok]:
                house = self.house(fault)
                house.set_jobs(house.check(says=f"ALERT the token is {TOKEN}"))
                house.telegram["apiRoot"] = root or house.telegram["apiRoot"]
                house.write()
                printed = [house.tick()]
                house.make_due()
                printed += [house.tick(), house.call("status"), house.call("explain", "disk"), house.call("status", "--json")]
                with self.subTest(root=root, fault=fault):
                    for ran in printed:
                        self.assertNotIn(TOKEN, ran.out + ran.err)
                    self.assertEqual(house.files_with(TOKEN, house.config_file), [])
                    self.assertEqual(house.files_with(TOKEN[10:], os.path.join(house.work, "ran"), house.config_file), [])


class TheOutbox(Case):
    def test_routine_expires_after_an_hour_and_alerts_after_a_week(self):
        # (rank, seconds since its notBefore, whether it is still told)
        week = 7 * 86400
        table = ((0, 3500, True), (0, 3700, False), (1, 3700, True), (1, week + 60, False), (3, week - 60, True), (3, week + 60, False))
        for rank, seconds, is_told in table:
            with self.subTest(rank=rank, seconds=seconds):
                house = self.house(jobs=[])
                house.put({"text": "words", "rank": rank})
                house.age(seconds)
                self.assertEqual(house.tick().code, ops.DONE)
                self.assertEqual((len(self.bot.shown), house.outbox), (int(is_told), []))

    def test_a_completion_is_kept_for_a_week(self):
        house = self.house(botapi.server_error)
        house.set_jobs(house.watched(running=False, completed=True))
        house.tick()
        house.age(6 * 86400)
        house.tick()
        self.assertEqual(self.told("COMPLETED"), 1)

    def test_routine_never_pushes_an_alert_out(self):
        house = self.house()
        house.claw_config.pop("commands")
        house.write()
        house.put(*({"text": "alert", "rank": 3} for _ in range(400)), *({"text": "routine", "rank": 0} for _ in range(600)))
        house.tick()
        ranks = [entry["rank"] for entry in house.outbox]
        self.assertEqual((len(ranks), ranks.count(3)), (500, 401))

    def test_an_alert_that_is_resolved_before_it_left_is_one_line_with_its_resolution(self):
        for fault, is_unknown in ((botapi.too_many, False), (botapi.server_error, True)):
            house = self.house(fault)
            often = {"everySeconds": 0.001}
            house.set_jobs(house.check(policy=often))
            house.tick()
            self.assertEqual(len(house.outbox), 1)
            house.set_jobs(house.check(code=0, policy=often))
            house.tick()
            house.make_due()
            house.tick()
            with self.subTest(fault=fault):
                self.assertEqual((len(self.bot.shown), self.told("RESOLVED · disk"), self.told(HEADLINE)), (1, 1, 0))
                self.assertRegex(self.bot.texts[0], "(had|may) not (have )?been delivered")
                self.assertEqual(REPEAT in self.bot.texts[0], is_unknown)

    def test_what_came_and_went_before_it_was_due_is_not_told_as_two(self):
        house = self.house()
        house.set_jobs(house.check(policy={"everySeconds": 0.001}))
        house.tick()
        house.set_jobs(house.check(code=0, policy={"everySeconds": 0.001}))
        house.tick()
        house.tick()
        self.assertEqual([HEADLINE in text for text in self.bot.texts], [True, False])
        self.assertEqual(self.told("RESOLVED · disk"), 1)

    def test_print_only_shows_the_report_and_keeps_what_is_queued(self):
        house = self.house(jobs=[])
        house.put({"text": "queued words"})
        before = house.outbox
        house.set_jobs(house.check())
        ran = house.tick("--print-only")
        self.assertEqual((ran.code, ran.out.count(HEADLINE), "queued words" in ran.out), (ops.DONE, 1, False))
        self.assertEqual((house.outbox, self.bot.connections, house.runs()), (before, 0, 1))
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual((self.told(), self.told("queued words"), house.runs()), (0, 1, 1))

    def test_dry_run_writes_and_sends_nothing(self):
        house = self.house()
        house.put({"text": "queued words"})
        before = house.state
        self.assertEqual(house.tick("--dry-run").code, ops.DONE)
        self.assertEqual((house.state, self.bot.connections, house.runs()), (before, 0, 0))

    def test_entries_of_wrong_types_are_passed_over_one_by_one(self):
        house = self.house(jobs=[])
        house.put({"text": "good"})
        odd = [
            None, 7, [], {"text": 7}, {"text": None}, {"text": "no id"}, {"id": 5, "text": "id five"},
            {"id": "x", "text": "ranked", "rank": "high"}, {"id": "y", "text": "timed", "rank": 3, "notBefore": "soon", "createdAt": []},
            {"id": "z", "text": "tried", "tries": "many", "about": 5},
        ]  # fmt: skip
        house.change_state(lambda raw: raw["outbox"].extend(odd))
        house.tick()
        self.assertEqual(self.told("good"), 1)

    def test_a_clock_set_back_does_not_hold_messages(self):
        house = self.house(jobs=[])
        house.put({"text": "words", "createdAt": time.time() + 9e6, "notBefore": time.time() + 9e6 + 5})
        house.tick()
        self.assertLess(house.outbox[0]["notBefore"], time.time() + 10)

    def test_exit_codes_say_what_is_left(self):
        house = self.house()
        self.assertEqual(house.tick().code, 0)
        house = self.house(botapi.server_error)
        self.assertEqual(house.tick().code, 3)
        house = self.house()
        house.set_jobs(house.check(), {"id": "half", "kind": "one_shot_read"})
        self.assertEqual(house.tick().code, 2)
        self.assertEqual((self.told(), self.told("half") > 0), (1, True))


# A tick in a process that prints which files it opens and whom it calls.
WITNESS = """
import os, sys
def witness(event, args):
    if event == "open" and isinstance(args[0], str):
        os.write(1, f"open {args[0]}\\n".encode())
    elif event in ("socket.connect", "socket.getaddrinfo"):
        os.write(1, f"{event} {args[1] if event == 'socket.connect' else args[:2]!r}\\n".encode())
sys.addaudithook(witness)
sys.argv = sys.argv[1:]
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class WhatATickTouches(Case):
    def witness(self, house, *argv):
        words = [sys.executable, "-I", "-S", "-c", WITNESS, *botapi.script_argv(*argv)[3:]]
        return subprocess.run(words, env=house.env, cwd=house.work, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=60)

    def test_an_idle_tick_does_not_open_openclaws_config_and_a_telling_one_calls_only_the_bot_api(self):
        house = self.house()
        ran = self.witness(house, "tick")
        self.assertEqual((ran.returncode, self.told()), (0, 1), ran.stderr)
        port = self.bot.server.server_address[1]
        self.assertIn(f"open {house.openclaw_file}", ran.stdout)
        calls = [line for line in ran.stdout.splitlines() if line.startswith("socket.")]
        self.assertTrue(calls)
        for line in calls:
            self.assertIn(str(port), line)
            self.assertIn("127.0.0.1", line)
        ran = self.witness(house, "tick")
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        self.assertIn(f"open {house.config_file}", ran.stdout)
        self.assertNotIn(house.openclaw_file, ran.stdout)
        self.assertNotIn("socket.", ran.stdout)

    def test_an_idle_tick_is_silent_and_leaves_the_state_file_as_it_is(self):
        house = self.house()
        house.tick()
        house.tick()
        before = {key: value for key, value in house.state.items() if key not in ("self", "savedAt")}
        self.assertEqual(house.tick(), (ops.DONE, "", ""))
        self.assertEqual({key: value for key, value in house.state.items() if key not in ("self", "savedAt")}, before)

    def test_a_hostile_server_is_read_with_a_bound(self):
        def flood(handler):
            try:
                handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (4 << 20))
            except OSError:
                pass

        house = self.house(flood)
        self.assertEqual(house.tick().code, ops.UNDELIVERED)
        self.assertEqual([entry["maybeSent"] for entry in house.outbox], [True])

    def test_a_server_that_is_not_http_is_an_unknown_outcome(self):
        def noise(handler):
            handler.wfile.write(b"220 smtp.example ESMTP\r\n")

        house = self.house(noise)
        self.assertEqual(house.tick().code, ops.UNDELIVERED)
        house.make_due()
        house.tick()
        self.assertEqual(self.told(), 1)

    def test_two_ticks_at_once_tell_once(self):
        house = self.house()
        self.bot.always = botapi.slow_ok
        house.set_jobs(house.check(), house.check("second"))
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        ticks = [subprocess.Popen(botapi.script_argv("tick"), env=house.env, **quiet) for _ in range(3)]
        for process in ticks:
            process.communicate(timeout=60)
        house.tick()
        self.assertEqual((self.told(), self.told("🔴 ALERT · second"), house.runs(), house.runs("second")), (1, 1, 1, 1))


class WhileOthersTakeTheirTime(Case):
    def test_an_alert_leaves_while_another_check_still_runs(self):
        house = self.house()
        gate = os.path.join(house.work, "gate")
        os.mkfifo(gate)

        def open_the_gate(request):
            with open(gate, "w") as file:
                file.write("go\n")

        self.bot.watchers.append(open_the_gate)
        slow = house.check("slow", policy={"everySeconds": 86400, "runTimeoutSeconds": 20})
        slow["commands"] = {"run": ["/bin/sh", "-c", "read -r x < gate; exit 0"]}
        house.set_jobs(slow, house.check())
        with mock.patch.object(ops, "ROUND", 0.2):
            self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual((self.told(), self.told("slow"), len(self.bot.shown)), (1, 0, 1))

    def test_interrupted_while_it_sends_a_tick_ends_at_once_and_loses_nothing(self):
        house = self.house(botapi.hang)
        process = subprocess.Popen(botapi.script_argv("tick"), env=house.env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        until = time.monotonic() + 30
        while not self.bot.requests and time.monotonic() < until:
            time.sleep(0.01)
        process.terminate()
        self.assertEqual(process.wait(8), 143)
        self.assertEqual(len(house.outbox), 1)
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual((self.told(), house.runs()), (1, 1))


class OnTheWay(Case):
    def test_a_proxy_of_openclaws_config_is_used(self):
        house = self.house()
        house.telegram.update(apiRoot="http://api.invalid", proxy=self.bot.url)
        house.write()
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual((self.told(), self.bot.shown[0].path), (1, f"http://api.invalid/bot{TOKEN}/sendMessage"))

    def test_a_name_that_does_not_resolve_is_a_definite_no(self):
        house = self.house()
        house.telegram["apiRoot"] = "http://api.invalid"
        house.write()
        with mock.patch("socket.getaddrinfo", side_effect=socket.gaierror(-2, "Name or service not known")):
            self.assertEqual(house.tick().code, ops.UNDELIVERED)
        self.assertFalse(house.outbox[0].get("maybeSent"))

    def test_a_proxy_that_we_cannot_speak_leaves_it_to_openclaw(self):
        house = self.house()
        house.telegram["proxy"] = "socks5://127.0.0.1:1080"
        house.fake_openclaw()
        house.write()
        self.assertEqual(house.tick().code, ops.DONE)
        self.assertEqual((len(house.calls), self.bot.connections), (1, 0))

    def test_a_proxy_that_is_no_url_is_named_without_its_password(self):
        for proxy in ("http://ops:hunter2/zz@127.0.0.1:3128", "http://ops:hunter2#zz@127.0.0.1:3128", "http://[hunter2", "http://127.0.0.1:hunter2"):
            with self.subTest(proxy):
                house = self.house()
                house.telegram["proxy"] = proxy
                house.write()
                ran = house.tick()
                self.assertEqual(ran.code, ops.UNDELIVERED)
                self.assertIn("channels.telegram.proxy or apiRoot is not a URL", ran.err)
                with open(house.state_file, encoding="utf-8") as file:
                    self.assertNotIn("hunter2", ran.err + file.read())

    def test_a_proxy_that_drips_is_given_up_before_the_request_goes_out(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            ended = threading.Event()

            def drip():
                connection, _ = server.accept()
                with contextlib.suppress(OSError), connection:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
                    while not ended.wait(0.02):
                        connection.sendall(b"x")

            thread = threading.Thread(target=drip, daemon=True)
            thread.start()
            proxy = "http://127.0.0.1:%d" % server.getsockname()[1]
            with mock.patch.object(ops, "HTTP_TIMEOUT", 0.2), self.assertRaises(OSError) as caught:
                ops.post_json("https://api.invalid/bot1:x/sendMessage", {}, proxy)
            self.assertNotIsInstance(caught.exception, ops.Lost)
            ended.set()
            thread.join(10)

    def test_an_api_root_that_speaks_no_tls_is_a_failure_that_loses_nothing(self):
        house = self.house()
        house.telegram["apiRoot"] = self.bot.url.replace("http:", "https:")
        house.write()
        self.assertEqual(house.tick().code, ops.UNDELIVERED)
        self.assertEqual((len(house.outbox), house.outbox[0].get("maybeSent", False)), (1, False))


if __name__ == "__main__":
    unittest.main()
