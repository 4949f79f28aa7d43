// Stands in for couriers: the payload says what is behind the door. In a real shop these
// are people with telephones, who publish `courier.back.<order>`, or do not.

import { emit, handler, Reject, subjectToken } from "weir-guest";

export const handle = handler((event) => {
  const back = `courier.back.${subjectToken(event.key)}`;
  const door = event.json();
  switch (door) {
    case "open":
      return emit(back, { delivered: true });
    case "closed":
      return emit(back, { delivered: false });
    case "nowhere":
      return; // never seen again
    default:
      throw new Reject(`no door is ${JSON.stringify(door)}`);
  }
});
