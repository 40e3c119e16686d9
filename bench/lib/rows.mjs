// The rows that works push: one that `end_user` knows whole, and that of the shared measuring rods.

/** A row as an app has it: 20 fields, about 500 bytes of JSON. `round` makes an update change something. */
function known(id, round = 0) {
  return {
    id, Unique_id: `u-${id}`, firstName: 'Asha', lastName: 'Kulkarni', name: 'Asha Kulkarni', email: `${id}@example.in`,
    phone: '+91 98200 11223', whatsapp: '+91 98200 11223', gender: 'female', bloodGroup: 'O+', dob: '1990-04-17',
    phoneModel: { brand: 'Samsung', model: 'A54' }, bankList: ['HDFC', 'SBI'], gstNo: '27AAPFU0939F1ZV',
    companyName: 'Kulkarni Traders Pvt Ltd', branchId: 'pune-1', status: 'lead', active: 1, note: `call back, round ${round}`,
    last_updated: '2025-11-23T10:00:00.000Z',
  };
}

const EDITED_MS = Date.parse('2026-11-23T10:00:00.000Z');

/** A row without `id` and with six fields that the table does not know; its app counts versions by itself. */
function foreign(id, round = 0) {
  return {
    Unique_id: `u-${id}`, firstName: 'Asha', lastName: 'Kulkarni', name: 'Asha Kulkarni', email: `asha.${round}@example.in`,
    phoneModel: { phone: '+91 98200 11223', type: 'mobile' }, gstNo: '27AAPFU0939F1ZV', companyName: 'Kulkarni Traders Pvt Ltd',
    address: '14 MG Road, Camp', city: 'Pune', state: 'Maharashtra', pincode: '411001', active: 1, sync_status: 'pending',
    version: round + 1, created_at: '2026-11-23T10:00:00.000Z', last_updated: new Date(EDITED_MS + round * 1000).toISOString(),
    device_id: 'dev-7f3a91c2', user_id: 'u-1029', is_deleted: 0,
  };
}

/** What rows look like: how one is made, and whether what a listener heard of a new one is whole. `name` is for figures. */
export const KNOWN = { name: '', make: known, isWhole: (row) => row.note === 'call back, round 0' && row.phoneModel.model === 'A54' };
export const FOREIGN = { name: ' (rods\' row)', make: foreign, isWhole: (row) => row.city === 'Pune' && row.phoneModel.type === 'mobile' };
export const KINDS = [KNOWN, FOREIGN];

let made = 0;
export const newId = () => `r-${String(++made).padStart(9, '0')}`;
export const newRow = (kind = KNOWN) => kind.make(newId());
