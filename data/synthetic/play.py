"""Plays a match: a chain of actions, from kick-off on, each at an exact frame."""

from dataclasses import replace

import numpy as np

from ...events import Event
from .script import (
    BLOCK,
    FLOWN,
    FORMATIONS,
    FOUL,
    FPS,
    GOAL_HALF_WIDTH,
    GRID,
    HALF_LENGTH,
    HALF_WIDTH,
    HEAD_HEIGHT,
    KICKS,
    SIDES,
    TACKLE,
    Array,
    Flight,
    Point,
    Pose,
    Receiver,
    Script,
    Style,
    Touch,
    choose_exit,
    choose_receiver,
    direction,
    draw_next,
    dribble_steps,
    flight_frames,
    nearest,
    stations,
)


def play_match(rng: np.random.Generator, num_frames: int) -> Script:
    """A match of `num_frames` frames at 25 fps, starting just before kick-off; equal generators play equal matches."""
    play = _Play(rng, num_frames)
    play.kick_off(wait_frames=int(rng.integers(14, 26)))
    while play.frame < num_frames:
        play.go_on()
    return play.script()


_FOLLOW_FRAMES, _SHARE = 40.0, 0.7
_BACK_FRAMES = 75
"""In which a player is back at his station after he was somewhere else."""


class _Play:
    """The state of play: always just after a label, with the ball still at the player who gets it."""

    def __init__(self, rng: np.random.Generator, num_frames: int) -> None:
        self.rng, self.num_frames = rng, num_frames
        self.formations = (str(rng.choice(FORMATIONS)), str(rng.choice(FORMATIONS)))
        self.frame = 0
        self.ball: Point = (0.0, 0.0, 0.0)
        self.side, self.player = int(rng.integers(2)), 10
        self.since = 0
        """Frame at which the player got the ball."""
        self.label = "PASS"
        self.followed = (0.0, 0.0)
        """Where the ball has been lately: the teams stand for that place, as they come late."""
        self.known: dict[tuple[int, int], tuple[int, float, float]] = {}
        """Who has just been somewhere: frame, x, y."""
        self.flights: list[Flight] = []
        self.touches: list[Touch] = []
        self.events: list[Event] = []

    def script(self) -> Script:
        """All of it, events after the last frame left out."""
        end_ms = GRID.ms(self.num_frames)
        events = tuple(sorted(event for event in self.events if event.position_ms < end_ms))
        touches = tuple(sorted(self.touches, key=lambda touch: touch.start))
        return Script(self.num_frames, self.formations, tuple(self.flights), touches, events)

    def go_on(self) -> None:
        """From the label just given to the next one."""
        (self._after_drive if self.label == "DRIVE" else self._after_kick)()

    def kick_off(self, *, wait_frames: int) -> None:
        """A pass from the centre spot."""
        if self.ball != (0.0, 0.0, 0.0):
            self._send((0.0, 0.0, 0.0), 300)
        self._take_set_piece("PASS", self.side, 10, wait_frames=wait_frames)

    # What follows a ball that is on its way

    def _after_kick(self) -> None:
        label, origin = self.label, self.ball
        teams = self._teams()
        receiver = choose_receiver(self.rng, label, origin, side=self.side, player=self.player, teams=teams)
        following = draw_next(self.rng, label, side=receiver.side, x=receiver.x, y=receiver.y)
        if following == "OUT":
            self._out(choose_exit(self.rng, label, origin, side=self.side))
        elif following == "GOAL":
            self._goal()
        elif following == BLOCK:
            self._block(receiver, teams)
        elif following == "HEADER":
            self._header(receiver, teams)
        else:
            self._fly((receiver.x, receiver.y, 0.0))
            self._receive(receiver)
            self._control(following)
            self._act(following)

    def _after_drive(self) -> None:
        self._carry()
        following = draw_next(self.rng, "DRIVE", side=self.side, x=self.ball[0], y=self.ball[1])
        if following == TACKLE:
            self._tackle()
        elif following == FOUL:
            self._foul()
        elif following == "OUT":
            self._out(choose_exit(self.rng, "DRIVE", self.ball, side=self.side))
        else:
            if following == "DRIVE":
                self._hold(int(self.rng.integers(8, 24)))
            self._act(following)

    # Building blocks

    def _teams(self) -> tuple[Array, Array]:
        near = _SHARE * np.array([self.ball[:2]]) + (1 - _SHARE) * np.array([self.followed])
        left, right = (
            stations(formation, side, near, np.array([1.0 if side == self.side else -1.0]))[0]
            for side, formation in enumerate(self.formations)
        )
        teams = (left, right)
        for (side, player), (frame, x, y) in list(self.known.items()):
            share = 1 - (self.frame - frame) / _BACK_FRAMES
            if share <= 0:
                del self.known[side, player]
            else:
                teams[side][player] += share * (np.array([x, y]) - teams[side][player])
        return teams

    def _mark(self, label: str) -> None:
        self.label = label
        self.events.append(Event(GRID.ms(self.frame), label, team=SIDES[self.side]))

    def _send(self, to: Point, frames: int, style: Style = "roll", bend: float = 0.0) -> None:
        flight = Flight(self.frame, self.frame + frames, self.ball, to, style, bend)
        self.flights.append(flight)
        share = 0.5 * (1 - float(np.exp(-frames / _FOLLOW_FRAMES)))
        x, y = self.followed
        self.followed = x + share * (self.ball[0] + to[0] - 2 * x), y + share * (self.ball[1] + to[1] - 2 * y)
        self.frame, self.ball = flight.stop, to

    def _fly(self, to: Point) -> None:
        """On its way as the last label sends it."""
        frames = flight_frames(self.rng, self.label, origin=self.ball, to=to)
        bend = float(self.rng.normal(0, 0.6)) if self.label in ("CROSS", "HIGH PASS", "FREE KICK") else 0.0
        flown = self.label in FLOWN or to[2] > 0.5 or self.ball[2] > 0.5
        self._send(to, frames, "fly" if flown else "roll", bend)

    def _hold(self, frames: int) -> None:
        """The ball stays at the player's feet."""
        if frames > 0:
            step = self.rng.normal(0, 0.25, 2)
            self._send((self.ball[0] + step[0], self.ball[1] + step[1], 0.0), frames)

    def _receive(self, receiver: Receiver) -> None:
        self.side, self.player, self.since = receiver.side, receiver.player, self.frame

    def _control(self, following: str) -> None:
        """Frames between getting the ball and what the player does with it."""
        if following == "DRIVE":
            pause = self.rng.integers(0, 5) if self.rng.random() < 0.65 else self.rng.integers(5, 20)
        else:
            pause = self.rng.integers(0, 1) if self.rng.random() < 0.6 else self.rng.integers(6, 26)
        if pause > 6:
            self._push(self.frame)
        self._hold(int(pause))

    def _act(self, label: str) -> None:
        """The player with the ball does it now."""
        if label == "DRIVE":
            self._push(self.frame)
        else:
            self._touch("kick" if label in KICKS else "run")
        self._mark(label)

    def _add(self, touch: Touch) -> None:
        place = touch.spot or (self.ball[0] + touch.offset[0], self.ball[1] + touch.offset[1])
        self.known[touch.side, touch.player] = (touch.stop, *place)
        self.touches.append(touch)

    def _touch(self, pose: Pose) -> None:
        self._add(Touch(self.side, self.player, self.since, self.frame, pose, self.frame))

    def _push(self, frame: int) -> None:
        self._add(Touch(self.side, self.player, frame, frame, "push", frame))

    def _carry(self) -> None:
        """The player runs with the ball, an opponent often beside him."""
        rng, ahead = self.rng, direction(self.side)
        seconds = float(np.clip(rng.lognormal(np.log(1.45), 0.8), 0.5, 14))
        if rng.random() < 0.09:  # nobody comes: he takes his time
            seconds += float(rng.uniform(2, 9))
        speed = float(np.clip(rng.normal(4.3, 1.3), 1.5, 7.5)) * (0.4 if self.player == 0 else 1.0)
        angle = rng.normal(0, 0.9) + (0 if rng.random() < 0.85 else np.pi)
        metres = min(speed * seconds, 14 + 2 * seconds)
        x = self.ball[0] + ahead * metres * np.cos(angle)
        y = self.ball[1] + metres * np.sin(angle)
        limit = HALF_LENGTH - 2.5
        to = (float(np.clip(x, -limit, limit)), float(np.clip(y, -32, 32)), 0.0)
        start = self.frame
        self._send(to, max(10, round(seconds * FPS)), "carry", float(rng.normal(0, 0.08)) * metres)
        steps = dribble_steps(self.frame - start)
        for step in range(1, steps):
            self._push(start + step * (self.frame - start) // steps)
        if rng.random() < 0.5:
            self._press(start)

    def _press(self, start: int) -> None:
        other = 1 - self.side
        presser = nearest(self._teams()[other], self.ball[0], self.ball[1])
        gap = self.rng.uniform(1.2, 2.6) * np.array([direction(self.side), self.rng.normal(0, 0.6)])
        late = min(self.frame, start + (self.frame - start) // 2 + 5)
        slides = self.rng.random() < 0.06
        touch = Touch(other, presser, late, self.frame, "slide" if slides else "run", self.frame if slides else None)
        self._add(_beside(touch, gap))

    # Interruptions of a ball on its way

    def _header(self, receiver: Receiver, teams: tuple[Array, Array]) -> None:
        side = receiver.side if self.rng.random() < 0.5 else 1 - receiver.side
        but = self.player if side == self.side else -1
        player = receiver.player if side == receiver.side else nearest(teams[side], receiver.x, receiver.y, but=but)
        self._fly((receiver.x, receiver.y, HEAD_HEIGHT + float(self.rng.uniform(-0.15, 0.4))))
        self._receive(Receiver(side, player, receiver.x, receiver.y))
        self._touch("head")
        if self.rng.random() < 0.55:
            rival = nearest(teams[1 - side], receiver.x, receiver.y)
            touch = Touch(1 - side, rival, self.frame, self.frame, "head", self.frame + int(self.rng.integers(-1, 3)))
            self._add(_beside(touch, np.array([0.6 * direction(side), 0.0]) + self.rng.normal(0, 0.3, 2)))
        self._mark("HEADER")

    def _block(self, receiver: Receiver, teams: tuple[Array, Array]) -> None:
        """An opponent stops the ball a few metres on."""
        metres = float(np.hypot(receiver.x - self.ball[0], receiver.y - self.ball[1]))
        reach = (3.5, 9.0) if self.label in ("SHOT", "CROSS") else (2.0, 6.0)
        part = min(0.9, self.rng.uniform(*reach) / max(metres, 1.0))
        x = self.ball[0] + part * (receiver.x - self.ball[0])
        y = self.ball[1] + part * (receiver.y - self.ball[1])
        height = float(self.rng.uniform(0.1, 1.2)) if self.label in ("SHOT", "CROSS", "HIGH PASS") else 0.0
        blocker = nearest(teams[1 - self.side], x, y)
        fast = {"SHOT": 17.0, "CROSS": 14.0}.get(self.label, 11.0)
        self._send((x, y, height), max(4, round(metres * part / fast * FPS)))
        self._receive(Receiver(1 - self.side, blocker, x, y))
        self._touch("slide" if self.rng.random() < 0.4 else "run")
        self._mark(BLOCK)

    def _tackle(self) -> None:
        other = 1 - self.side
        tackler = nearest(self._teams()[other], self.ball[0], self.ball[1])
        self._touch("fall" if self.rng.random() < 0.4 else "run")
        self._receive(Receiver(other, tackler, self.ball[0], self.ball[1]))
        self._touch("slide" if self.rng.random() < 0.6 else "run")
        self._mark(TACKLE)

    # Stoppages

    def _out(self, leaves: Point) -> None:
        x, y, z = leaves
        if self.label == "DRIVE":
            self._touch("run")
            self._send(leaves, max(8, round(np.hypot(x - self.ball[0], y - self.ball[1]) / 7 * FPS)))
        else:
            self._fly(leaves)
        last = self.side
        self._mark("OUT")
        over_goal_line = abs(x) == HALF_LENGTH
        over = (3.0 * np.sign(x), float(self.rng.normal(0, 1))) if over_goal_line else (0.0, 2.8 * np.sign(y))
        self._send((x + over[0], y + over[1], 0.0), 22, "fly" if z > 0.5 else "roll")
        if not over_goal_line:
            self._throw_in(1 - last, x, y)
        elif direction(last) * x > 0:
            self._goal_kick(1 - last)
        else:
            self._corner(1 - last, x, y)

    def _throw_in(self, side: int, x: float, y: float) -> None:
        seconds = float(np.clip(self.rng.lognormal(np.log(13.5), 0.55), 3.6, 40))
        spot = (x, float(np.copysign(HALF_WIDTH + 0.4, y)))
        self._fetch((*spot, 0.0), seconds)
        self.side = side
        thrower = nearest(self._teams()[side], x, y)
        arrived = self.frame
        self._send((*spot, 1.1), 12)
        self._send((*spot, 1.1), int(self.rng.integers(10, 40)), "still")
        self._send((*spot, 2.15), 10)
        self.player, self.since = thrower, self.frame
        self._add(Touch(side, thrower, arrived, self.frame, "throw", self.frame, spot=spot))
        self._mark("THROW IN")

    def _goal_kick(self, side: int) -> None:
        spot = (-direction(side) * 47.5, float(self.rng.choice((-1, 1)) * self.rng.uniform(2, 8)), 0.0)
        self._fetch(spot, float(np.clip(self.rng.normal(29, 7), 12, 45)))
        label = "HIGH PASS" if self.rng.random() < 0.82 else "PASS"
        self._take_set_piece(label, side, 0, wait_frames=int(self.rng.integers(40, 90)))

    def _corner(self, side: int, x: float, y: float) -> None:
        spot = (float(np.copysign(HALF_LENGTH - 0.3, x)), float(np.copysign(HALF_WIDTH - 0.3, y)), 0.0)
        self._fetch(spot, float(np.clip(self.rng.normal(25, 6), 12, 40)))
        self.side = side
        label = "CROSS" if self.rng.random() < 0.9 else "PASS"
        taker = nearest(self._teams()[side], spot[0], spot[1])
        self._take_set_piece(label, side, taker, wait_frames=int(self.rng.integers(30, 80)))

    def _foul(self) -> None:
        victim_side = self.side
        self._touch("fall")
        fouler = nearest(self._teams()[1 - victim_side], self.ball[0], self.ball[1])
        touch = Touch(1 - victim_side, fouler, self.frame, self.frame + 15, "slide", self.frame)
        self._add(_beside(touch, np.array([0.5 * direction(victim_side), 0.4])))
        x, y, _ = self.ball
        self._send((x + float(self.rng.normal(0, 2)), y + float(self.rng.normal(0, 2)), 0.0), 30)
        self._fetch((x, y, 0.0), float(np.clip(self.rng.normal(28, 10), 6, 55)))
        near_goal = direction(victim_side) * x > 12
        direct = near_goal and self.rng.random() < 0.35
        label = "FREE KICK" if direct else "PASS" if self.rng.random() < 0.6 else "HIGH PASS"
        self.side = victim_side
        taker = nearest(self._teams()[victim_side], x, y)
        self._take_set_piece(label, victim_side, taker, wait_frames=int(self.rng.integers(25, 80)))

    def _goal(self) -> None:
        ahead, scorer = direction(self.side), self.side
        y, z = float(self.rng.uniform(-GOAL_HALF_WIDTH + 0.3, GOAL_HALF_WIDTH - 0.3)), float(self.rng.uniform(0, 2.1))
        self._fly((ahead * HALF_LENGTH, y, z))
        self._mark("GOAL")
        self._send((ahead * (HALF_LENGTH + 1.6), y * 0.9, 0.0), 12, "fly")
        start = self.frame
        self._add(Touch(scorer, self.player, start + 120, start + 260, "cheer", start + 100, spot=(ahead * 46, 25)))
        self._send(self.ball, round(float(self.rng.normal(32, 5)) * FPS), "still")
        self.side = 1 - scorer
        self.kick_off(wait_frames=int(self.rng.integers(150, 350)))

    def _fetch(self, spot: Point, seconds: float) -> None:
        """The ball lies where it came to rest, then it is brought to `spot`; `seconds` in all."""
        frames = round(seconds * FPS)
        metres = float(np.hypot(spot[0] - self.ball[0], spot[1] - self.ball[1]))
        back = min(2 * frames // 3, 25 + round(metres / 6 * FPS))
        self._send(self.ball, max(1, frames - back), "still")
        self._send(spot, max(1, back))

    def _take_set_piece(self, label: str, side: int, player: int, *, wait_frames: int) -> None:
        """The ball lies still, the player stands behind it, runs up and kicks."""
        start, ahead = self.frame, direction(side)
        self._send(self.ball, wait_frames, "still")
        self.side, self.player, self.since = side, player, self.frame
        behind = (self.ball[0] - 2.5 * ahead, self.ball[1] - 0.8)
        self._add(Touch(side, player, start, max(start, self.frame - 22), "run", spot=behind))
        self._act(label)


def _beside(touch: Touch, gap: Array) -> Touch:
    """The same touch at some metres from the ball."""
    return replace(touch, offset=(float(gap[0]), float(gap[1])))
